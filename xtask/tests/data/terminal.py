"""Runs a program with its standard output on a terminal of so many columns, and writes what it printed there to its own."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

columns, program = int(sys.argv[1]), sys.argv[2:]
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
modes = termios.tcgetattr(theirs)
modes[1] &= ~termios.OPOST  # line ends stay as they were written
termios.tcsetattr(theirs, termios.TCSANOW, modes)
child = subprocess.Popen(program, stdout=theirs)
os.close(theirs)
while True:
    try:
        some = os.read(ours, 65536)
    except OSError:  # nobody writes there any more
        break
    if not some:
        break
    sys.stdout.buffer.write(some)
sys.stdout.buffer.flush()
sys.exit(child.wait())
