#include "kernels.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace edgeprune {

#define EDGEPRUNE_DECLARE(isa) \
  namespace isa {              \
  extern const Kernels kernels; \
  }
EDGEPRUNE_DECLARE(portable)
#if defined(__x86_64__)
EDGEPRUNE_DECLARE(avx2)
EDGEPRUNE_DECLARE(avx2_vnni)
EDGEPRUNE_DECLARE(avx512)
EDGEPRUNE_DECLARE(avx512_bf16)
EDGEPRUNE_DECLARE(amx)
#endif
#undef EDGEPRUNE_DECLARE

namespace {

struct List {
  const Kernels* entries[7] = {};
  int count = 0;
  void add(bool supported, const Kernels& kernels) {
    if (supported) entries[count++] = &kernels;
  }
};

#if defined(__x86_64__)
// The compiler's own name for it is younger than the compilers we build with.
bool has_avx_vnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

// Linux lets a process use the matrix unit once it has asked for it.
bool has_amx() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned bf16 = d >> 22 & 1, tile = d >> 24 & 1, int8 = d >> 25 & 1;
  if (!(bf16 & tile & int8)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

List find_kernels() {
  List list;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  // Processors with a matrix unit add bfloat16 in vectors at half the pace of floats: these kernels
  // take floats there.
  list.add(avx512 && has_amx(), amx::kernels);
  list.add(avx512 && __builtin_cpu_supports("avx512bf16"), avx512_bf16::kernels);
  list.add(avx512, avx512::kernels);
  list.add(avx2 && has_avx_vnni(), avx2_vnni::kernels);
  list.add(avx2, avx2::kernels);
#endif
  list.add(true, portable::kernels);
  return list;
}

}  // namespace

const Kernels* const* available_kernels() {
  static const List found = find_kernels();
  return found.entries;
}

}  // namespace edgeprune
