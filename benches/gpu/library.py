"""The library of our launchers (src/), and its memory as PyTorch's tensors."""
import ctypes
import json
import math


class LibraryError(Exception):
    """What the library answered instead of a result."""


class Library:
    """Requests to a library at a path; see src/session.rs."""

    def __init__(self, path):
        library = ctypes.CDLL(path)
        self._call, self._free = library.gpu_bench_call, library.gpu_bench_free
        self._call.argtypes, self._call.restype = [ctypes.c_char_p], ctypes.c_void_p
        self._free.argtypes, self._free.restype = [ctypes.c_void_p], None

    def __call__(self, what, **arguments):
        answer = self._call(json.dumps({"do": what, **arguments}).encode())
        try:
            result = json.loads(ctypes.string_at(answer))
        finally:
            self._free(answer)
        if "error" in result:
            raise LibraryError(result["error"])
        return result


class _DlpackDevice(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]


class _DlpackType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _DlpackTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", _DlpackDevice), ("rank", ctypes.c_int32), ("dtype", _DlpackType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64)]


class _DlpackManaged(ctypes.Structure):
    _fields_ = [("tensor", _DlpackTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


# DLPack's numbers of types and devices.
_TYPES = {"f32": (2, 32), "bf16": (4, 16), "i32": (0, 32)}
CPU, CUDA = 1, 2
# Descriptions of tensors, which PyTorch reads until it lets go of one. They are small, own no memory, and are kept.
_descriptions = []


def view(torch, address, shape, dtype, device=CUDA):
    """A PyTorch tensor over memory that is there and stays there: nothing is copied, nothing is freed."""
    code, bits = _TYPES[dtype]
    rank = len(shape)
    sizes = (ctypes.c_int64 * rank)(*shape)
    strides = (ctypes.c_int64 * rank)(*(math.prod(shape[i + 1:]) for i in range(rank)))
    tensor = _DlpackTensor(address, _DlpackDevice(device, 0), rank, _DlpackType(code, bits, 1), sizes, strides, 0)
    managed = _DlpackManaged(tensor, None, None)
    _descriptions.append((managed, sizes, strides))
    make = ctypes.pythonapi.PyCapsule_New
    make.argtypes, make.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object
    return torch.utils.dlpack.from_dlpack(make(ctypes.addressof(managed), b"dltensor", None))


def views(torch, tensors):
    """A dictionary of views of what the library lists."""
    return {t["name"]: view(torch, t["address"], t["shape"], t["dtype"]) for t in tensors}
