"""The settings: each defined once, and read from flags, variables and the settings file. Pure, but
for `reader`, which is a process of its own.
"""
