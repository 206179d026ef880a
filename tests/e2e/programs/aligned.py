"""/memory.py beside a thread whose stack pointer is on a page boundary; it is run in a container.

There CRIU takes all memory for that thread's stack (is_stack() in criu/mem.c, 4.2.1), and none of it can follow.
"""

import ctypes
import mmap
import platform
import runpy
import threading

# and rsp, -4096; then for ever: mov eax, 34 (pause); syscall
CODE = {"x86_64": bytes.fromhex("4881e400f0ffff b822000000 0f05 ebf7")}[platform.machine()]

code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(CODE)
pause = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
threading.Thread(target=pause, daemon=True).start()
runpy.run_path("/memory.py")
