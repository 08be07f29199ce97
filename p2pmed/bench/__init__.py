"""What ``p2pmed bench`` measures, each figure beside the limit of the machine in the same run.

Rule: a figure without its limit says nothing about us, so every ``Result`` that has one carries
it and the ratio; and no figure is better than the work that was really done (signed, checked,
flushed, by real processes where it says so).
"""
