// The kernels of one instruction set; compiled once for each, with that set's options.
#include "packing.hpp"
#include "panel_kernels.hpp"
#include "patches.hpp"
#include "peak.hpp"
#include "row_kernels.hpp"
#include "tile_kernels.hpp"

namespace edgeprune::EDGEPRUNE_ISA {
namespace {

constexpr uint32_t kFewestTileRows = 16;  // fewer rows of activations leave most of a tile empty

// Blocks of few outputs run over panels of activations; wide ones over rows, or in tiles.
bool is_wide(const Weights& w) { return w.rows >= 16; }

bool wants_tiles(const Weights& w) {
#if defined(__AMX_INT8__)
  return w.rows == 16 && w.precision != Precision::f32;
#else
  return (void)w, false;
#endif
}

bool by_panels(const Weights& w, uint32_t rows) {
  return !is_wide(w) || (w.tile_begin && rows >= kFewestTileRows);
}

// Calls `run.operator()<precision, width>()` for what is only known at run time.
template <class Run>
void for_width(Precision precision, uint32_t width, const Run& run) {
  const auto precise = [&](auto panel_width) {
    constexpr int kWidth = decltype(panel_width)::value;
    switch (precision) {
      case Precision::f32: return run.template operator()<Precision::f32, kWidth>();
      case Precision::bf16: return run.template operator()<Precision::bf16, kWidth>();
      case Precision::int8: return run.template operator()<Precision::int8, kWidth>();
    }
  };
  if constexpr (kBytes >= 64)
    if (width == 64) return precise(std::integral_constant<int, 64>());
  if constexpr (kBytes >= 32)
    if (width == 32) return precise(std::integral_constant<int, 32>());
  precise(std::integral_constant<int, 16>());
}

void pack(const Weights& w, const Input& input, const RowFacts& facts, const Panel& panel,
          uint32_t begin, uint32_t end) {
  for_width(w.precision, panel.width, [&]<Precision P, int Width>() {
    if constexpr (P == Precision::int8)
      if (is_wide(w)) return pack_panel<P, Width, Layout::words>(input, facts, panel, begin, end);
    if constexpr (P == Precision::f32)
      pack_float_panel<Width>(input, facts, panel, begin, end);
    else
      pack_panel<P, Width, Layout::planes>(input, facts, panel, begin, end);
  });
}

template <Precision P, int Width, class Finish>
void multiply_with(const Weights& w, const Panel& panel, const RowFacts& facts, uint32_t begin,
                   uint32_t end, const Finish& finish) {
#if defined(__AMX_INT8__)
  if constexpr (P != Precision::f32)
    if (is_wide(w)) return multiply_by_tiles<P, Width>(w, panel, facts, begin, end, finish);
#endif
  multiply_panel<P, Width>(w, panel, facts, begin, end, finish);
}

void multiply(const Weights& w, const Panel& panel, const RowFacts& facts, const Output& out,
              uint32_t begin, uint32_t end) {
  for_width(w.precision, panel.width, [&]<Precision P, int Width>() {
    multiply_with<P, Width>(
        w, panel, facts, begin, end,
        [&](uint32_t first, uint32_t last, const auto& sums, Part part) EDGEPRUNE_LAMBDA {
          finish_tile<P, Width>(w, panel, facts, out, first, last, sums, part);
        });
  });
}

void multiply_to_floats(const Weights& w, const Panel& panel, const RowFacts& facts,
                        const float* bias, Activation activation, const Columns& columns,
                        uint32_t begin, uint32_t end) {
  for_width(w.precision, panel.width, [&]<Precision P, int Width>() {
    multiply_with<P, Width>(
        w, panel, facts, begin, end,
        [&](uint32_t first, uint32_t last, const auto& sums, Part part) EDGEPRUNE_LAMBDA {
          finish_to_floats<P, Width>(w, panel, facts, bias, activation, columns, first, last, sums,
                                     part);
        });
  });
}

void pack_any_floats(const Weights& w, const float* floats, const RowFacts& facts,
                     const Panel& panel) {
  for_width(w.precision, panel.width, [&]<Precision P, int Width>() {
    if constexpr (P == Precision::int8)
      if (is_wide(w)) return pack_floats<P, Width, Layout::words>(floats, w.inputs, facts, panel);
    if constexpr (P == Precision::f32)
      scan_floats<Width>(floats, w.inputs, false, facts, panel.first_row);
    else
      pack_floats<P, Width, Layout::planes>(floats, w.inputs, facts, panel);
  });
}

void pack_any_rows(Precision precision, const Input& input, const RowFacts& facts, void* packed,
                   uint64_t stride, uint32_t begin, uint32_t end) {
  const auto run = precision == Precision::f32    ? pack_rows<Precision::f32>
                   : precision == Precision::bf16 ? pack_rows<Precision::bf16>
                                                  : pack_rows<Precision::int8>;
  run(input, facts, packed, stride, begin, end);
}

void multiply_any_rows(const Weights& w, const Input& packed, const RowFacts& facts,
                       const Output& out, uint32_t begin, uint32_t end) {
  const auto run = w.precision == Precision::f32    ? multiply_rows<Precision::f32>
                   : w.precision == Precision::bf16 ? multiply_rows<Precision::bf16>
                                                    : multiply_rows<Precision::int8>;
  run(w, packed, facts, out, begin, end);
}

bool convert(Precision precision, const float* from, uint64_t count, float scale,
             int32_t zero_point, void* to) {
  const auto run = precision == Precision::f32    ? convert_floats<Precision::f32>
                   : precision == Precision::bf16 ? convert_floats<Precision::bf16>
                                                  : convert_floats<Precision::int8>;
  return run(from, count, scale, zero_point, static_cast<uint8_t*>(to));
}

void cut_patches(Precision precision, const Window& window, const Planes& planes,
                 const Positions& at, void* panel) {
  for_width(precision, at.width, [&]<Precision P, int Width>() {
    cut_panel<P, Width>(window, planes, at, panel);
  });
}

uint64_t run_any_peak(Precision precision, uint64_t steps) {
  const auto run = precision == Precision::f32    ? run_peak<Precision::f32>
                   : precision == Precision::bf16 ? run_peak<Precision::bf16>
                                                  : run_peak<Precision::int8>;
  return run(steps);
}

}  // namespace

#define EDGEPRUNE_TEXT_OF(name) #name
#define EDGEPRUNE_TEXT(name) EDGEPRUNE_TEXT_OF(name)

extern const Kernels kernels;
const Kernels kernels = {
    EDGEPRUNE_TEXT(EDGEPRUNE_ISA),
    {kBytes, kBytes / 2 >= 16 ? kBytes / 2 : 0, kBytes / 4 >= 16 ? kBytes / 4 : 0},
    wants_tiles,
    by_panels,
    pack,
    multiply,
    multiply_to_floats,
    pack_any_floats,
    pack_any_rows,
    multiply_any_rows,
    convert,
    cut_patches,
    run_any_peak,
};

}  // namespace edgeprune::EDGEPRUNE_ISA
