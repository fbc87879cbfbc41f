# A node: the worker and the trainers that it starts. Build from the root of the checkout, with --target cpu or gpu.
FROM python:3.11-slim-bookworm AS packages
# An index that has another build of torch than the default index, such as PyTorch's own of CPU builds, which
# are smaller by gigabytes. Empty: the default index alone, whose build brings CUDA on x86-64.
ARG TORCH_INDEX_URL=""
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml README.md constraints.txt ./
COPY thaw ./thaw
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL" /venv/bin/pip install -c constraints.txt ".[worker]"

FROM python:3.11-slim-bookworm AS node
# The worker is root, without most of root's rights (see docker-compose.yml), so that it can start trainers
# under a uid of their own, which read neither its environment nor another run's folder.
RUN useradd --uid 10001 --create-home trainer && install -d -m 0711 /var/lib/thaw
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 THAW_TRAINER_UID=10001
WORKDIR /app
COPY --from=packages /venv /venv
COPY shared ./shared
COPY worker ./worker
CMD ["python", "-m", "worker"]

# What the container toolkit of NVIDIA reads: all GPUs of the reservation, and their compute libraries.
FROM node AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM node AS cpu
