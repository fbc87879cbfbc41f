"""Why jobs fail: every code that an error may hold, what it means, whether it is tried again, what helps.

docs/failures.md shows this table. A code that is not in it cannot come out: `known_code` sees to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.errors import Invalid, ThawError
from shared.domain.events import ErrorReport
from shared.domain.job import Outcome

PEER_LOST = "peer_lost"
INTERNAL = "internal"
WORKER_LOST = "worker_lost"
SUPERVISOR_FAILED = "supervisor_failed"
DISK_FULL = "disk_full"
PORT_TAKEN = "port_taken"
NODE_UNREACHABLE = "node_unreachable"
NO_PROGRESS = "no_progress"

# Of the node, not of the job: it gets no offers for a while, else it takes one job's try after another's.
THE_NODES_OWN = frozenset({SUPERVISOR_FAILED, DISK_FULL, PORT_TAKEN, NODE_UNREACHABLE})


@dataclass(frozen=True)
class Failure:
    """One row. `tried_again`: up to max_attempts tries, then the job fails with this code."""

    meaning: str
    tried_again: bool
    helps: str


def _users(meaning: str, helps: str) -> Failure:
    """What another try would meet again."""
    return Failure(meaning, tried_again=False, helps=helps)


def _machines(meaning: str, helps: str) -> Failure:
    """What another try, or another node, may not meet."""
    return Failure(meaning, tried_again=True, helps=helps)


_OPERATOR = "an operator finds more in the log of the worker on that node"
_REPORT = "report it, with the traceback: this is an error of Thaw's own"

FAILURES: Mapping[str, Failure] = {
    # Memory.
    "out_of_memory": _users(
        "the device, or the allocator of the host, had no memory left for the batch that was tried",
        "half the batch_size, smaller pictures, hyperparameters.gradient_checkpointing, or more frozen",
    ),
    "host_out_of_memory": _machines(
        "the kernel killed a process of the run as the host, or the worker's cgroup, had no memory left",
        "a smaller batch_size or smaller pictures, a node with more memory, or fewer jobs beside it there",
    ),
    "process_killed": _machines(
        "a process of the run was killed by a signal that Thaw did not send, such as the SIGKILL of a kernel "
        "whose memory runs out",
        "if it comes again: less memory (a smaller batch_size, smaller pictures), or ask who kills there",
    ),
    "process_crashed": _machines(
        "a process of the run crashed in native code (SIGSEGV, SIGBUS, SIGABRT ...)",
        "if it comes again: look at where the traceback stands; SIGBUS means that /dev/shm is full",
    ),
    # The numbers.
    "non_finite_loss": _users(
        "a loss, or a weight after a step, was NaN or infinite; the newest checkpoint is from before it",
        "a lower learning_rate, gradient_clip_norm, warmup_steps, or precision fp32",
    ),
    "non_finite_gradients": _users(
        "in fp16 the gradients overflowed at so many steps in a row that nothing is learned any more",
        "precision bf16 or fp32, a lower learning_rate, or gradient_clip_norm",
    ),
    "nothing_learns": _users(
        "no parameter that should train takes part in the loss", "train a part that the loss depends on"
    ),
    "unused_parameters": _users(
        "parameters that should train take no part in the loss at some step, and the ranks would drift apart",
        "freeze.find_unused_parameters: true",
    ),
    "ranks_differ": _users(
        "parameters differ between the ranks, though all take the same steps",
        "a model that changes its parameters outside of the optimizer is the usual cause",
    ),
    # The data.
    "bad_data": _users(
        "the data set, or one sample of it, cannot be trained on; the message names the file and the sample",
        "repair or take out what the message names, or raise preprocessing.max_unreadable_fraction",
    ),
    "bad_archive": _users("the uploaded archive cannot be unpacked safely", "make and upload it anew"),
    "archive_too_large": _users(
        "the archive has more files or bytes than this server unpacks", "part it, or ask the operator"
    ),
    "too_many_labels": _users("a multilabel data set has too many labels", "fewer labels"),
    "not_found": _users("a file that the job needs is gone", "upload it again and submit a new job"),
    "read_failed": _machines("a node could not read a file of the data set from its own disk", _OPERATOR),
    # The model.
    "model_raised": _users(
        "the code of a registered model raised an error; the message holds its words and the place",
        "mend the model's package and install it on the nodes",
    ),
    "bad_model_output": _users(
        "the model cannot take the batch, or answers in another shape than the task needs",
        "check preprocessing.image_size and the task",
    ),
    "bad_training_step": _users(
        "one of the model's own training steps gives no usable loss", "see docs/tasks.md, custom"
    ),
    "model_not_installed": _machines(
        "the node that took the job does not have its registered model, or has it from other sources",
        "install the same version of the package on every node and start the workers again",
    ),
    "frozen_part_moved": _users(
        "a tensor that is frozen was changed", "the model must not change its own tensors, in forward or else"
    ),
    "network_moved": _users(
        "a network that was only run was changed by it", "the model must not change its own tensors"
    ),
    "plan_mismatch": _users(
        "the freeze plan names what the network does not have", "submit the job again: the model has changed"
    ),
    "no_effect": _users(
        "the job asks for something that would have no effect on this network", "leave it out"
    ),
    "unknown_module": _users("a module that the job names is not in the network", "name one of the nearest"),
    "bad_module_output": _users(
        "a module that should be saved does not put out a tensor with a row a sample", "name another module"
    ),
    "module_not_called": _users("a module that should be saved is never called", "name another module"),
    "module_called_again": _users(
        "a module that should be saved is called several times", "name another module"
    ),
    "out_of_range": _users("activations do not fit into float16", 'dtype "float32"'),
    "too_large": _users("the activations would be larger than this server allows", "name fewer modules"),
    "bad_weights_file": _users("the weights are no safetensors file", "save them as safetensors"),
    "unsupported_precision": _users("the device cannot compute in that precision", "precision auto"),
    "invalid_value": _users(
        "only when it ran was it found that what the job asks for is not possible", "see the message"
    ),
    # Going on from earlier work.
    "base_job_failed": _users(
        "the job whose result this one goes on from has none", "submit both again, the base job first"
    ),
    "checkpoint_mismatch": _machines(
        "the checkpoint is of another run, or of another model",
        "nothing: an earlier one is tried, and without one the job starts anew",
    ),
    "checkpoint_of_another_version": _users(
        "the checkpoint was written by another version of Thaw", "submit the job anew"
    ),
    "damaged_checkpoint": _machines(
        "a checkpoint is not what its manifest says", "nothing: the next try goes on from the one before"
    ),
    # Time.
    "time_limit": _users(
        "the job was not done after max_duration_s of running, over all its tries",
        "a greater max_duration_s, fewer epochs, or more devices",
    ),
    NO_PROGRESS: _machines(
        "no rank got any further for stall_s; the traceback shows where each of them stood",
        "if each try stops in one place: the model, or its data, waits there for something that never comes",
    ),
    # Nodes and what lies between them.
    WORKER_LOST: _machines(
        "the worker or its whole node went away: killed, restarted, cut off, or without power",
        "nothing, if it happens once; else ask the operator about the node that the message names",
    ),
    PEER_LOST: _machines(
        "a rank lost the connection to another, whose own end was not seen", "nothing, if it happens once"
    ),
    NODE_UNREACHABLE: _machines(
        "a node of the run had no answer from another one for unreachable_s, though both may have reached "
        "everything else; the message names the two",
        "nothing, if it happens once; else the operator looks at the network between these two nodes",
    ),
    "lease_lost": _machines(
        "the run was held for too long, as the database could not be reached", "nothing, if it happens once"
    ),
    "grace_over": _machines(
        "of a try: the run was asked to stop, did not leave in its grace and was killed",
        "nothing: it goes on from its newest checkpoint when it runs again",
    ),
    "checkpoint_not_stored": _machines(
        "of a try: the run left before the store took its last checkpoint",
        "nothing: it goes on from an earlier one",
    ),
    "fenced": _machines("the worker ended the run, or ended itself", "nothing, if it happens once"),
    "trainer_ended": _machines(
        "the trainer ended without a word of why; the traceback is the end of its log",
        "a model that calls sys.exit or os._exit ends so",
    ),
    SUPERVISOR_FAILED: _machines("the worker program itself failed", _OPERATOR),
    DISK_FULL: _machines(
        "no space was left on a node's disk (ENOSPC, or its quota), with what is free there now",
        "the operator makes room in THAW_WORK_DIR, or lowers THAW_CACHE_BYTES",
    ),
    PORT_TAKEN: _machines(
        "another program holds the port of the node's slot, on which the ranks of a run would meet",
        "the operator ends that program, or gives the node another THAW_PORT_BASE",
    ),
    "no_device": _machines("the node's GPU was not there when the trainer started", _OPERATOR),
    "artifact_store_unavailable": _machines("the artifact store could not be reached", "try again later"),
    "artifact_corrupt": _machines("a stored file is not what was stored", "upload the file again"),
    "artifact_not_found": _users("a stored file is gone", "upload it again and submit a new job"),
    "weights_unavailable": _machines(
        "the published weights could not be fetched", "the operator puts them into THAW_WEIGHTS_DIR"
    ),
    "weights_corrupt": _machines("the published weights have another hash than announced", "try again later"),
    "unavailable": _machines("a part that is needed could not be reached", "try again later"),
    # Ours.
    "wrong_world_size": _users("other ranks were started than the job is for", _REPORT),
    INTERNAL: _users("an error that Thaw has no word for", "see the traceback; if it is Thaw's, report it"),
}


def known_code(code: str) -> str:
    """`code`, or the word for an error that has no word, where it is none of the table's."""
    return code if code in FAILURES else INTERNAL


def code_of(error: ThawError) -> str:
    """The table's code for a typed error. What only requests are refused with is not possible here either."""
    if isinstance(error, Invalid) and error.code not in FAILURES:
        return Invalid.default_code
    return known_code(error.code)


def outcome_of(code: str) -> Outcome:
    """Whether an attempt that ends with `code` is tried again."""
    return Outcome.LOST if FAILURES[known_code(code)].tried_again else Outcome.FAILED


def explained(error: ErrorReport) -> ErrorReport:
    """The report with a code of the table and, where it has no hint of its own, the table's."""
    code = known_code(error.code)
    return error.model_copy(update={"code": code, "hint": error.hint or FAILURES[code].helps})
