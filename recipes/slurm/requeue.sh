#!/bin/bash
# Runs a command as a SLURM batch job; the two .sbatch files of this folder end with it.
#   exec bash requeue.sh COMMAND...
# SLURM sends USR1 to the batch shell only (--signal=B:USR1@...). This script forwards it to the command, which saves
# and exits with 75, as it also does after train.max_hours. The job is then requeued, and the next start resumes.
set -u

"$@" &
command=$!
trap 'kill -USR1 "$command"' USR1 TERM # not TERM: srun would kill its tasks

while kill -0 "$command" 2> /dev/null; do # a trapped signal ends `wait` before the command has ended
    wait "$command"
done
wait "$command"
code=$?

# After `scancel` the command exits with 75 too; but then the job is not RUNNING, and stays cancelled.
if [[ $code == 75 && $(squeue --noheader --job "$SLURM_JOB_ID" --format %T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
