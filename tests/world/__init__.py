"""The world test: up to twelve processes over shared runs, and all that happens to them.

Every crash test plays one script; here the scripts are played against each other. A schedule is a
list of actions drawn from a seed (`schedule.py`); the driver (`driver.py`) has workers
(`worker.py`) do them, breaks files itself (`breaking.py`), and the oracle (`oracle.py`) judges. By
hand::

    python -m tests.world --seed 1 --seconds 60            # worlds 1, 2, 3, ...
    python -m tests.world --seed 1 --only fork,kill,copy   # some actions
    python -m tests.world --seed 7 --minimise 120             # the least actions that still fail
    python -m tests.world --script FILE --times 10         # a minimised schedule, again

The schedule is the same for a seed; what the scheduler of the machine makes of it is not. So a
failure is played several times when it is minimised, and a script has ``--times``.

**What was acknowledged.** A *writer* is one recorder in one process. Each thread of it numbers its
records; every record names writer, thread and number, and its name and value are a function of
these. A counter in shared memory is raised when ``record()`` (``record_dict()``, ``event()``) has
returned True; a second one when ``flush()`` or ``close()`` has returned True, to what was
acknowledged before the call.

**Where it must be.** A run that is moved takes its records along: its directories, old and new,
are a *family*. After all processes have ended, the disk has room and ``recover()`` has run:

1. Every acknowledged record is in the files of its family exactly once, but for what the world
   took away (and once in each of two runs, where a writer lost sight of the one that was moved).
   A record of which ``record()`` did not return may be there too: one per thread of a
   process that was killed.
2. The world took away: the records that lay in a file at the moment when it lost its name
   (removed, renamed, compressed) or was cut. What a writer puts into it *later* is not excused:
   it must look behind its write, before it counts a record as written.
3. Where a process was killed, or ended while the disk was full, and its ring is gone (removed with
   its run) or was in memory, only what ``flush()`` had promised must be there.
4. Each line parses and is what was recorded; a file holds one writer's lines, each thread's in
   order. A file that the world cut, or whose writer was killed without a ring, may end within a
   line.
5. A copy loses no whole line that it had when it was made, whatever rings it has, and gains none
   twice. Where a later state was copied over it, lines may be there twice: what recovery wrote
   before, and what came. A reader says so.
6. Nobody changes a byte of the user's files, or closes the user's descriptors.
7. Recovery leaves no ring behind and quarantines none: the world damages none. Copies of live
   rings excepted.

**What may be claimed.** ``flush()`` or ``close()`` that returned True: the records are in the files
when it is looked, or were taken away. A reader shows what was promised before it began. At the end
a reader shows what is in the files, and does not say `complete` where a record is missing and a
later one of its thread and stream is there, or the writer was killed and its ring is gone or was in
memory: then the loss can be known. (With a whole file a stream's tail, or all of it, may vanish
without a trace; and with a run's directory all that knew of its writers.) It finds no fault with a
run in which nothing was broken. ``stats()``: calls = accepted + dropped, accepted = what was
acknowledged, and = written after ``close()``. With a disk that has room ``close()`` returns True.
No call raises; nobody dies but who is killed; nothing takes longer than a deadline (then the stacks
of who hangs are shown), and nobody prints a traceback. Who ends as a program does has status 0; a
closed recorder leaves no descriptor and took 64 MiB beside its ring at most; hundreds of recoveries
in a row leave none, and 16 MiB.

A violation has a *kind*, the word in ``oracle.fail(kind, ...)``, ``self.fault(kind, ...)``.
"""
