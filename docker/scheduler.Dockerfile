# The scheduler. Build from the root of the checkout.
FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml README.md constraints.txt ./
COPY thaw ./thaw
RUN --mount=type=cache,target=/root/.cache/pip /venv/bin/pip install -c constraints.txt ".[scheduler]"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home thaw
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=packages /venv /venv
COPY shared ./shared
COPY scheduler ./scheduler
USER 10001
CMD ["python", "-m", "scheduler"]
