"""A grid of data sets, teachers, models, seeds and methods, run to one table as papers print it."""
