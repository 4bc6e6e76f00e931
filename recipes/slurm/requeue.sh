#!/bin/bash
# Runs a command as a SLURM batch job: what the two .sbatch files beside this one end with.
#   exec bash requeue.sh COMMAND...
# SLURM sends USR1 to the batch shell alone (--signal=B:USR1@...). It is passed on to the command, which saves and
# exits with 75, as it also does after train.max_hours. The job then goes back into the queue, where it goes on.
set -u

"$@" &
command=$!
trap 'kill -USR1 "$command"' USR1 TERM # not TERM: srun would kill its tasks

while kill -0 "$command" 2> /dev/null; do # a trapped signal ends `wait` before the command has ended
    wait "$command"
done
wait "$command"
code=$?

# `scancel` makes the command exit with 75 too; the job is not RUNNING then, and stays cancelled.
if [[ $code == 75 && $(squeue --noheader --job "$SLURM_JOB_ID" --format %T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
