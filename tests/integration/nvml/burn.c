/* Keeps the first NVIDIA GPU busy until it is killed, with the driver alone: libcuda.so.1 is loaded, and the kernel is PTX. No CUDA toolkit. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *ptx =
  ".version 6.0\n.target sm_50\n.address_size 64\n"
  ".visible .entry spin(.param .u64 cycles) {\n"
  ".reg .pred %p; .reg .u64 %n, %from, %now, %gone;\n"
  "ld.param.u64 %n, [cycles];\n"
  "mov.u64 %from, %clock64;\n"
  "AGAIN:\n"
  "mov.u64 %now, %clock64;\n"
  "sub.u64 %gone, %now, %from;\n"
  "setp.lt.u64 %p, %gone, %n;\n"
  "@%p bra AGAIN;\n"
  "ret;\n}\n";

static void *library;

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  if (!found) { fprintf(stderr, "libcuda.so.1 has no %s\n", name); exit(3); }
  return found;
}

#define DO(name, types, ...) do { \
    int (*call) types; \
    *(void **)&call = symbol(#name); \
    int result = call(__VA_ARGS__); \
    if (result) { fprintf(stderr, "%s: CUDA error %d\n", #name, result); exit(2); } \
  } while (0)

int main(void) {
  int device;
  void *context, *module, *function;
  unsigned long long cycles = 50000000ull;
  void *arguments[] = { &cycles };
  library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) { fprintf(stderr, "%s\n", dlerror()); return 3; }
  DO(cuInit, (unsigned), 0);
  DO(cuDeviceGet, (int *, int), &device, 0);
  DO(cuCtxCreate_v2, (void **, unsigned, int), &context, 0, device);
  DO(cuModuleLoadData, (void **, const void *), &module, ptx);
  DO(cuModuleGetFunction, (void **, void *, const char *), &function, module, "spin");
  for (;;) {
    DO(cuLaunchKernel,
       (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
       function, 1024, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL);
    DO(cuCtxSynchronize, (void));
  }
}
