"""Faults of distributed training, shown and found.

museum.py     one small training job in which exactly one thing can be wrong
known.py      its faults, with where each was found in a real project
diagnosis.py  do the ranks still hold the same, and did they say the same?
"""
