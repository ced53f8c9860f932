"""Strategies, one file each: a plain module and a process group in, a parallel module out."""
