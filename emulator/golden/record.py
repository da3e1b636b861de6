"""Records what a GPU gives for single instructions: raw operands in, raw results out.

    python record.py OUT_DIR           needs a GPU, and cupy, numpy, safetensors; cuda-bindings for tensor maps
    python record.py OUT_DIR --check   only compiles everything, which needs no GPU

No layout is interpreted: fragments are kept lane by lane as registers held them, shared memory as bytes beside the
descriptor or the tensor map that was used. An emulator is right when the same operands give the same bits
(approximations: within the manual's bounds). Each file's metadata names device, driver and runtime. A case that
fails is reported and left out.
"""

import argparse
import ctypes
import glob
import json
import os
import sys
import tempfile

import numpy as np

PRE = r"""
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned short u16; typedef unsigned char u8;
__device__ __forceinline__ u32 saddr(const void* p) { return (u32)__cvta_generic_to_shared(p); }
"""


def mma_source(shape, ta, tb, na, nb, tc="f32", nc=4):
    """One warp, `cases` tiles: a[case][reg][lane], b, c -> d, as 32-bit registers."""
    c_reg = "f" if tc == "f32" else "r"
    ty = "float" if tc == "f32" else "u32"
    outs = ",".join(f'"={c_reg}"(d[{i}])' for i in range(nc))
    ins = ",".join(
        [f'"r"(a[{i}])' for i in range(na)]
        + [f'"r"(b[{i}])' for i in range(nb)]
        + [f'"{c_reg}"(c[{i}])' for i in range(nc)]
    )
    idx = lambda s, n: "{" + ",".join(f"%{s + i}" for i in range(n)) + "}"
    operands = ", ".join([idx(0, nc), idx(nc, na), idx(nc + na, nb), idx(nc + na + nb, nc)])
    text = f"mma.sync.aligned.{shape}.row.col.{tc}.{ta}.{tb}.{tc} {operands};"
    return PRE + f"""
extern "C" __global__ void k(const u32* A, const u32* B, const {ty}* C, {ty}* D, int cases) {{
  int lane = threadIdx.x;
  for (int s = blockIdx.x; s < cases; s += gridDim.x) {{
    u32 a[{na}], b[{nb}]; {ty} c[{nc}], d[{nc}];
    for (int i = 0; i < {na}; i++) a[i] = A[(s * {na} + i) * 32 + lane];
    for (int i = 0; i < {nb}; i++) b[i] = B[(s * {nb} + i) * 32 + lane];
    for (int i = 0; i < {nc}; i++) c[i] = C[(s * {nc} + i) * 32 + lane];
    asm volatile("{text}" : {outs} : {ins});
    for (int i = 0; i < {nc}; i++) D[(s * {nc} + i) * 32 + lane] = d[i];
  }}
}}"""


def ldmatrix_source(x, trans):
    outs = ",".join(f'"=r"(d[{i}])' for i in range(x))
    regs = "{" + ",".join(f"%{i}" for i in range(x)) + "}"
    t = ".trans" if trans else ""
    return PRE + f"""
extern "C" __global__ void k(const u32* S, const u32* off, u32* D) {{
  __shared__ __align__(1024) u32 s[1024]; int lane = threadIdx.x;
  for (int i = lane; i < 1024; i += 32) s[i] = S[i];
  __syncwarp(); u32 d[{x}];
  asm volatile("ldmatrix.sync.aligned.m8n8.x{x}{t}.shared.b16 {regs}, [%{x}];"
               : {outs} : "r"(saddr(s) + off[lane]));
  for (int i = 0; i < {x}; i++) D[i * 32 + lane] = d[i];
}}"""


def stmatrix_source(x, trans):
    ins = ",".join(f'"r"(d[{i}])' for i in range(x))
    regs = "{" + ",".join(f"%{i + 1}" for i in range(x)) + "}"
    t = ".trans" if trans else ""
    return PRE + f"""
extern "C" __global__ void k(const u32* S, const u32* off, u32* D) {{
  __shared__ __align__(1024) u32 s[1024]; int lane = threadIdx.x;
  for (int i = lane; i < 1024; i += 32) s[i] = 0xdeadbeefu;
  __syncwarp(); u32 d[{x}];
  for (int i = 0; i < {x}; i++) d[i] = S[i * 32 + lane];
  asm volatile("stmatrix.sync.aligned.m8n8.x{x}{t}.shared.b16 [%0], {regs};"
               :: "r"(saddr(s) + off[lane]), {ins} : "memory");
  __syncwarp();
  for (int i = lane; i < 1024; i += 32) D[i] = s[i];
}}"""


UNARY = {  # name: (instruction, input type, output type)
    "ex2.approx.f32": "f",
    "ex2.approx.ftz.f32": "f",
    "lg2.approx.f32": "f",
    "lg2.approx.ftz.f32": "f",
    "rcp.approx.f32": "f",
    "rcp.approx.ftz.f32": "f",
    "rsqrt.approx.f32": "f",
    "rsqrt.approx.ftz.f32": "f",
    "sqrt.approx.f32": "f",
    "sqrt.rn.f32": "f",
    "rcp.rn.f32": "f",
    "sin.approx.f32": "f",
    "cos.approx.f32": "f",
    "tanh.approx.f32": "f",
}
CVT = [
    "cvt.rn.bf16x2.f32",
    "cvt.rz.bf16x2.f32",
    "cvt.rn.f16x2.f32",
    "cvt.rz.f16x2.f32",
    "cvt.rn.relu.bf16x2.f32",
]


def unary_source(op):
    return PRE + f"""
extern "C" __global__ void k(const float* X, float* Y, int n) {{
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {{
    float y; asm volatile("{op} %0, %1;" : "=f"(y) : "f"(X[i])); Y[i] = y; }}
}}"""


def cvt_source(op):
    return PRE + f"""
extern "C" __global__ void k(const float* X, u32* Y, int n) {{
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n / 2; i += gridDim.x * blockDim.x) {{
    u32 y; asm volatile("{op} %0, %1, %2;" : "=r"(y) : "f"(X[2 * i]), "f"(X[2 * i + 1])); Y[i] = y; }}
}}"""


def math_source():
    """CUDA's own device functions, which NVRTC expands to several instructions."""
    return PRE + r"""
extern "C" __global__ void k(const float* X, float* Y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float x = X[i];
    Y[i] = expf(x);
    Y[n + i] = logf(x);
    Y[2 * n + i] = tanhf(x);
    Y[3 * n + i] = erff(x);
    Y[4 * n + i] = sqrtf(x);
    Y[5 * n + i] = 1.f / x;
    Y[6 * n + i] = sinf(x);
    Y[7 * n + i] = cosf(x);
    Y[8 * n + i] = fmaf(x, x, -x);
    Y[9 * n + i] = x * x + x;
    Y[10 * n + i] = powf(fabsf(x), 1.7f);
    Y[11 * n + i] = __expf(x);
  }
}"""


def wgmma_source(n, dtype="bf16", ta=0, tb=0):
    """One warpgroup: an image of shared memory and two descriptors' upper bits in, accumulators out; D = A B (scale-d 0)."""
    nr = n // 2
    outs = ",".join(f'"+f"(d[{i}])' for i in range(nr))
    regs = "{" + ",".join(f"%{i}" for i in range(nr)) + "}"
    return PRE + f"""
extern "C" __global__ void __launch_bounds__(128, 1) k(const u32* S, u64 da, u64 db, int offb, float* D, u32* base) {{
  extern __shared__ __align__(1024) u32 s[]; int t = threadIdx.x;
  for (int i = t; i < 12288; i += 128) s[i] = S[i];
  float d[{nr}];
  #pragma unroll
  for (int i = 0; i < {nr}; i++) d[i] = 0.f;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); __syncthreads();
  u64 a = da | ((saddr(s) & 0x3FFFF) >> 4), b = db | (((saddr(s) + offb) & 0x3FFFF) >> 4);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  asm volatile("wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{dtype}.{dtype} {regs}, %{nr}, %{nr + 1}, 0, 1, 1, {ta}, {tb};"
               : {outs} : "l"(a), "l"(b));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  #pragma unroll
  for (int i = 0; i < {nr}; i++) D[i * 128 + t] = d[i];
  if (t == 0) *base = saddr(s);
}}"""


TMA = PRE + r"""
struct __align__(64) TMap { u64 o[16]; };
extern "C" __global__ void k(const __grid_constant__ TMap m, int x, int y, int bytes, u32* D, u32* base) {
  extern __shared__ __align__(1024) u32 s[]; __shared__ __align__(8) u64 bar; int t = threadIdx.x;
  for (int i = t; i < bytes / 4; i += blockDim.x) s[i] = 0xdeadbeefu;
  if (t == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(saddr(&bar)));
    asm volatile("fence.mbarrier_init.release.cluster;");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (t == 0) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(saddr(&bar)), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];"
                 :: "r"(saddr(s)), "l"(&m), "r"(x), "r"(y), "r"(saddr(&bar)) : "memory");
  }
  asm volatile("{ .reg .pred p; W: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @p bra D; bra W; D: }"
               :: "r"(saddr(&bar)) : "memory");
  for (int i = t; i < bytes / 4; i += blockDim.x) D[i] = s[i];
  if (t == 0) *base = saddr(s);
}"""

MMA = [
    ("m16n8k16", "bf16", "bf16", 4, 2),
    ("m16n8k8", "bf16", "bf16", 2, 1),
    ("m16n8k16", "f16", "f16", 4, 2),
    ("m16n8k8", "f16", "f16", 2, 1),
    ("m16n8k8", "tf32", "tf32", 4, 2),
    ("m16n8k4", "tf32", "tf32", 2, 1),
]


def operands(rng, dtype, shape):
    """Random operands in four regimes: ordinary, wide exponents, cancelling, and with specials."""
    n = int(np.prod(shape)) * (1 if dtype == "tf32" else 2)
    x = rng.standard_normal(n).astype(np.float32)
    q = n // 4
    x[q : 2 * q] *= np.exp2(
        rng.integers(-12 if dtype == "f16" else -60, 12 if dtype == "f16" else 60, q)
    ).astype(np.float32)
    x[2 * q : 3 * q] = np.round(x[2 * q : 3 * q] * 8) / 8
    k = rng.integers(3 * q, n, max(1, n // 256))
    x[k] = rng.choice(np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40], np.float32), len(k))
    if dtype == "f16":
        return x.astype(np.float16).view(np.uint32).reshape(shape)
    if dtype == "bf16":
        return (x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint32).reshape(shape)
    return x.view(np.uint32).reshape(shape)


def points(rng, n=65536):
    """Bit patterns over the whole float range, plus the ranges that matter to softmax and GELU, plus specials."""
    a = rng.integers(0, 2**32, n // 2, dtype=np.uint32).view(np.float32)
    b = (rng.standard_normal(n // 4) * 4).astype(np.float32)
    c = np.concatenate(
        [
            np.linspace(-20, 20, n // 4 - 16),
            [
                0,
                -0.0,
                np.inf,
                -np.inf,
                np.nan,
                1,
                -1,
                2,
                0.5,
                1e-40,
                -1e-40,
                3.4e38,
                1.17549435e-38,
                88.7,
                -104,
                126,
            ],
        ]
    ).astype(np.float32)
    return np.concatenate([a, b, c])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--arch", default="90a")
    ap.add_argument("--cases", type=int, default=96)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    sources = {f"mma.{s}.{x}": mma_source(s, x, y, na, nb) for s, x, y, na, nb in MMA}
    sources |= {
        f"ldmatrix.x{x}{'.trans' if t else ''}": ldmatrix_source(x, t) for x in (1, 2, 4) for t in (0, 1)
    }
    sources |= {
        f"stmatrix.x{x}{'.trans' if t else ''}": stmatrix_source(x, t) for x in (1, 2, 4) for t in (0, 1)
    }
    sources |= {u: unary_source(u) for u in UNARY} | {c: cvt_source(c) for c in CVT} | {"math": math_source()}
    sources |= {
        f"wgmma.n{n}.{ta}{tb}": wgmma_source(n, "bf16", ta, tb)
        for n in (8, 64, 128, 256)
        for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1))
    } | {"tma": TMA}
    if a.check:
        return check(sources, a.arch)
    import cupy as cp
    from safetensors.numpy import save_file

    rng = np.random.default_rng(20261122)
    props = cp.cuda.runtime.getDeviceProperties(0)
    meta = dict(
        device=props["name"].decode(),
        driver=str(cp.cuda.runtime.driverGetVersion()),
        runtime=str(cp.cuda.runtime.runtimeGetVersion()),
        arch=a.arch,
    )
    fams, failed = {}, []

    def kernel(name):
        path = os.path.join(tempfile.mkdtemp(), "k.cubin")
        open(path, "wb").write(compile_cubin(sources[name], a.arch))
        return cp.RawModule(path=path).get_function("k")

    def put(family, case, **arrays):
        fams.setdefault(family, {}).update(
            {f"{case}/{k}": np.ascontiguousarray(v) for k, v in arrays.items()}
        )

    def flush():
        """Write what there is: a later fault must not cost what was recorded before."""
        for fam, t in fams.items():
            save_file(
                t,
                os.path.join(a.out, f"{fam}.safetensors"),
                {"record": json.dumps(meta), "arrays": str(len(t))},
            )

    def attempt(name, fn):
        try:
            fn()
            cp.cuda.runtime.deviceSynchronize()
            print("recorded", name, flush=True)
        except Exception as e:
            failed.append((name, str(e)[:200]))
            print("FAILED", name, str(e)[:200], flush=True)

    for s, x, y, na, nb in MMA:

        def run(s=s, x=x, na=na, nb=nb):
            n = a.cases
            A, B = operands(rng, x, (n, na, 32)), operands(rng, x, (n, nb, 32))
            C = (rng.standard_normal((n, 4, 32)) * np.exp2(rng.integers(-20, 20, (n, 1, 1)))).astype(
                np.float32
            )
            C[: n // 2] = 0
            D = cp.zeros((n, 4, 32), cp.float32)
            kernel(f"mma.{s}.{x}")((8,), (32,), (cp.asarray(A), cp.asarray(B), cp.asarray(C), D, np.int32(n)))
            put("mma", f"{s}.{x}", a=A, b=B, c=C, d=D.get())

        attempt(f"mma {s} {x}", run)
    for kind in ("ldmatrix", "stmatrix"):
        for x in (1, 2, 4):
            for t in (0, 1):

                def run(kind=kind, x=x, t=t):
                    name = f"{kind}.x{x}{'.trans' if t else ''}"
                    off = (rng.permutation(128)[:32] * 16).astype(np.uint32)
                    src = rng.integers(0, 2**32, 1024 if kind == "ldmatrix" else x * 32, dtype=np.uint32)
                    D = cp.zeros(x * 32 if kind == "ldmatrix" else 1024, cp.uint32)
                    kernel(name)((1,), (32,), (cp.asarray(src), cp.asarray(off), D))
                    put(kind, name, source=src, offset=off, out=D.get())

                attempt(f"{kind} x{x} {t}", run)
    X = points(rng)
    n = len(X)
    for u in UNARY:

        def run(u=u):
            Y = cp.zeros(n, cp.float32)
            kernel(u)((64,), (256,), (cp.asarray(X), Y, np.int32(n)))
            put("unary", u, y=Y.get().view(np.uint32))

        attempt(u, run)
    put("unary", "all", x=X.view(np.uint32))
    for c in CVT:

        def run(c=c):
            Y = cp.zeros(n // 2, cp.uint32)
            kernel(c)((64,), (256,), (cp.asarray(X), Y, np.int32(n)))
            put("unary", c, y=Y.get())

        attempt(c, run)

    def run():
        Y = cp.zeros((12, n), cp.float32)
        kernel("math")((64,), (256,), (cp.asarray(X), Y, np.int32(n)))
        put("math", "functions", x=X.view(np.uint32), y=Y.get().view(np.uint32))

    attempt("math", run)
    flush()

    def tma():
        from cuda.bindings import driver as drv

        rows, cols = 40, 96
        G = cp.asarray(rng.integers(0, 2**16, (rows, cols), dtype=np.uint16))
        f = kernel("tma")
        S = drv.CUtensorMapSwizzle
        for name, swz, bx in (
            ("none", S.CU_TENSOR_MAP_SWIZZLE_NONE, 64),
            ("32", S.CU_TENSOR_MAP_SWIZZLE_32B, 16),
            ("64", S.CU_TENSOR_MAP_SWIZZLE_64B, 32),
            ("128", S.CU_TENSOR_MAP_SWIZZLE_128B, 64),
        ):
            u32, u64 = drv.cuuint32_t, drv.cuuint64_t
            err, tm = drv.cuTensorMapEncodeTiled(
                drv.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                G.data.ptr,
                [u64(cols), u64(rows)],
                [u64(cols * 2)],
                [u32(bx), u32(16)],
                [u32(1), u32(1)],
                drv.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                swz,
                drv.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_NONE,
                drv.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            assert int(err) == 0, err
            raw = np.array([tuple([[int(v) for v in tm.opaque]])], dtype=[("o", np.uint64, 16)])[0]
            for cx, cy in ((0, 0), (16, 8), (-8, -3), (80, 32)):
                D, at = cp.zeros(bx * 16 // 2, cp.uint32), cp.zeros(1, cp.uint32)
                f(
                    (1,),
                    (32,),
                    (raw, np.int32(cx), np.int32(cy), np.int32(bx * 32), D, at),
                    shared_mem=bx * 32 + 1024,
                )
                put("tma", f"swizzle{name}.box{bx}x16.at{cx}.{cy}", out=D.get(), base=at.get())
        put("tma", "global", source=G.get())

    attempt("tma", tma)
    flush()
    for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):  # transposed operands last
        for nn in (8, 64, 128, 256):

            def run(nn=nn, ta=ta, tb=tb):
                f = kernel(f"wgmma.n{nn}.{ta}{tb}")
                img = (
                    (rng.standard_normal(24576).astype(np.float32).view(np.uint32) >> 16)
                    .astype(np.uint16)
                    .view(np.uint32)
                )
                for swz in (0, 1, 2, 3):
                    for lbo, sbo in ((16, 256), (128, 1024), (256, 128), (1024, 512), (2048, 1024)):
                        if max(7, nn // 8 - 1) * sbo + lbo + 4096 > 32768:
                            continue  # stays inside the image
                        base = ((lbo >> 4) << 16) | ((sbo >> 4) << 32) | (swz << 62)
                        D, at = cp.zeros((nn // 2, 128), cp.float32), cp.zeros(1, cp.uint32)
                        f(
                            (1,),
                            (128,),
                            (cp.asarray(img), np.uint64(base), np.uint64(base), np.int32(16384), D, at),
                            shared_mem=49152,
                        )
                        put(
                            "wgmma",
                            f"n{nn}.ta{ta}.tb{tb}.swizzle{swz}.lbo{lbo}.sbo{sbo}",
                            d=D.get(),
                            base=at.get(),
                        )
                put("wgmma", f"n{nn}.ta{ta}.tb{tb}", image=img)

            attempt(f"wgmma n{nn} ta{ta} tb{tb}", run)
            flush()
    print({f: len(t) for f, t in fams.items()})
    print(json.dumps(dict(meta, failed=failed)))


def nvrtc():
    """libnvrtc from the library path, a toolkit, or an installed wheel."""
    found = sum(
        [glob.glob(os.path.join(p, "nvidia", "**", "libnvrtc.so.1[23]"), recursive=True) for p in sys.path],
        [],
    ) + glob.glob("/usr/local/cuda*/lib64/libnvrtc.so*")
    for name in ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", *found]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit("no libnvrtc found: pip install nvidia-cuda-nvrtc")


def compile_cubin(src, arch):
    n, p, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    n.nvrtcCreateProgram(ctypes.byref(p), src.encode(), b"k.cu", 0, None, None)
    if n.nvrtcCompileProgram(
        p, 2, (ctypes.c_char_p * 2)(f"--gpu-architecture=sm_{arch}".encode(), b"--std=c++17")
    ):
        n.nvrtcGetProgramLogSize(p, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        n.nvrtcGetProgramLog(p, log)
        raise RuntimeError(log.value.decode()[:400])
    n.nvrtcGetCUBINSize(p, ctypes.byref(size))
    out = ctypes.create_string_buffer(size.value)
    n.nvrtcGetCUBIN(p, out)
    return out.raw


def check(sources, arch):
    """Compile everything; needs no GPU."""
    bad = 0
    for name, src in sources.items():
        try:
            compile_cubin(src, arch)
        except RuntimeError as e:
            bad += 1
            print(name, e)
    print(len(sources) - bad, "of", len(sources), "compile for", arch)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
