// Device functions, calls, printf, function pointers, a template, initial values of every kind.
extern "C" int printf(const char*, ...);
struct Big { int a[5]; char b; };
__constant__ float table[4] = {1.0f, -2.5f, 3e10f, 0.0f};
__device__ int counter = 7;
__device__ int* pointer = &counter;
__device__ double grid[2][3] = {{1, 2}, {3}};
__device__ __managed__ int managed;
__device__ const char* message = "hi\n";
__device__ __noinline__ Big twist(Big b, int k, float f) { b.a[k & 3] += (int)f; b.b = 3; return b; }
__device__ __noinline__ int plus(int a, int b) { return a + b * 3; }
__device__ __noinline__ int minus(int a, int b) { return a - b * 3; }
typedef int (*Op)(int, int);
__device__ Op ops[2] = {plus, minus};
template <class T> __global__ void __launch_bounds__(128, 2) generic(T* p) { p[threadIdx.x] = p[threadIdx.x] * T(2); }
template __global__ void generic<float>(float*);
extern "C" __global__ void calls(int* out, int which, Big big) {
    int i = threadIdx.x;
    Big r = twist(big, i, table[i & 3]);
    int v = ops[which](i, *pointer);
    switch (which) {
        case 0: v += 3; out[5] = 1; break; case 1: v *= 7; out[6] = v; break; case 2: v ^= 9; break; case 3: v = v / 5; out[9] = 2; break; case 4: v -= 9; break; case 5: v <<= 2; break; case 6: v = -v; break; case 7: v = ~v; break;
    }
    printf("%d %f\n", v, grid[i & 1][i % 3]);
    if (i == 77) printf("%s", message);
    atomicAdd(&managed, v);
    out[i] = r.a[i % 5] + v + r.b;
    if (v == 12345) __trap();
}
