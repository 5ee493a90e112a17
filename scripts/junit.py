"""Prints the number of passed and of failed tests in a JUnit file, and the slowest.

Usage: junit.py FILE
"""

import sys
import xml.etree.ElementTree as ElementTree

cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
slowest = max(cases, key=lambda case: float(case.get("time", 0)), default=None)
words = [str(len(cases) - len(failed)), str(len(failed))]
if slowest is not None:
    words.append(f"{slowest.get('name')} {float(slowest.get('time', 0)):.0f} s")
print(" ".join(words))
