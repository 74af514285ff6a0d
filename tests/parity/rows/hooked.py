"""Dash's hooks and pages, which are the whole process's."""
