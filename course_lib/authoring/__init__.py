'''How to write a lesson or an exercise. This page is all that an author needs.

Sources are Python files in percent format; everything else is built from them, in one direction only:

    notebooks/src/NN_topic.py  ->  notebooks/NN_topic.ipynb    the lesson, executed
    solutions/src/NN_topic.py  ->  solutions/NN_topic.ipynb    the teacher's solution, executed
                               ->  exercises/NN_topic.ipynb    what learners fill in, never executed

`course build` builds what changed, `course build 05` chapter 05 alone, `course build --all` everything;
`course build --check` only says what is stale. Commit the sources together with what was built from them.

Cells. A line `# %%` starts a code cell, `# %% [markdown]` a text cell whose lines begin with `# `:

    # %% [markdown] id="why"
    # Four replicas, four slices of the data: are they still *one* model?

    # %% id="first-run" tags=["nbval-check-output"]
    run = launch(train, 4)

- `id` is optional (letters, digits, - and _; unique in the file). A cell without one gets an id from its content.
- Tags: `raises-exception` for a cell that is meant to fail, `nbval-check-output` for one whose text must come out
  the same in every run (no times, ports, process ids). A cell that fails without the tag fails the build.
- IPython magics (`%time`, `!ls`) are not supported: a source stays plain Python that ruff can read.
- While a notebook is built its folder is the working folder and COURSE_LIB_PROGRESS=0 hides progress bars.

Exercises (solutions/src only). A task N.M is one answer cell `answer-N-M` and, after it, one check cell `check-N-M`;
further cells may stand between the two. The part to be written is marked inside a function's body:

    # %% id="answer-5-1"
    def average_gradients(model):
        """Replace every gradient by its mean over the ranks."""
        ### BEGIN SOLUTION 5.1: average every gradient over the ranks
        ### HINT dist.all_reduce adds; what turns a sum into a mean?
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        ### END SOLUTION

    # %% id="check-5-1"
    with check("5.1") as c:
        run = launch(gradient_of_slice, 2, average_gradients, seed())
        c.equal("gradient on 2 ranks", run[0], lambda: whole_gradient(seed()), hint="divide by the world size")
        c.at_most("messages sent by rank 0", run.messages, lambda: 1, hint="one all_reduce a bucket")

In the exercise the block becomes its hints as comments and `raise NotImplementedError("Task 5.1: ...")`; in the solution
the marker lines vanish. The text after the number is the task's title in every report. One answer cell may hold several
blocks of the same task. Give each answer all it needs (imports, helpers) in its own cell or in cells that learners do not
write: grading takes over the answer cells and nothing else.

Checks, from `course_lib.grading`:
- Everything that runs the learner's code belongs inside the `with` block: there nothing raises, and the outcome is one line.
- `equal(name, got, want)` compares numbers, strings, tensors, and lists or dicts of those: integers exactly, floats to
  1e-9 of the largest, so compute in float64. `at_most(name, got, bound)` is for costs.
- `want` and `bound` are lambdas: when graded they are taken out of the notebook, and the values are compared with those
  of the teacher's own solution. Hand over values, not verdicts: `c.equal("sum", x, lambda: 6)`, never
  `c.equal("right", x == 6, lambda: True)`, which a guess can pass.
- Where an answer could call what it is to write, hand `by_hand(answer)` to the check: it stops at calls into torch or `course_lib.cost`.
- Draw data from `seed()`: 0 for a learner, fresh for each grading, so that a hard-coded answer fails.
'''

from course_lib.authoring.markers import AuthoringError, Task

__all__ = ["AuthoringError", "Task"]
