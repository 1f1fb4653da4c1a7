#include "multiply.hpp"

#include <algorithm>
#include <vector>

#include "scratch.hpp"

namespace edgeprune {
namespace {

// Rows that lie a multiple of this apart fall into the same lines of the first-level cache.
constexpr uint64_t kAliasingBytes = 2048;
// What finishing and storing the outputs of a group takes, in entries.
constexpr uint64_t kFinishingEntries = 16;
// Slots that a thread packs at once: the longest vector of floats.
constexpr uint32_t kSlots = 16;
constexpr uint32_t kWidestPanel = 64;

template <class Body>
void in_parallel(const Parallel& parallel, const Body& body) {
  if (parallel.threads <= 1) return body(0, 1);
  parallel.run(
      parallel.threads,
      [](int i, int n, void* state) { (*static_cast<const Body*>(state))(i, n); },
      const_cast<Body*>(&body));
}

uint64_t cost_before(const Weights& w, uint32_t group) {
  return w.begin[group] + group * kFinishingEntries;
}

// The first group, at a boundary of `step`, in front of which at least `cost` lies.
uint32_t group_at(const Weights& w, uint64_t cost, uint32_t step) {
  uint32_t low = 0, high = w.groups;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (cost_before(w, middle) < cost)
      low = middle + 1;
    else
      high = middle;
  }
  return std::min((low + step - 1) / step * step, w.groups);
}

struct Job {
  const Weights& w;
  const Call& call;
  const Input& x;
  RowFacts facts;
  Output out;
  const Parallel& parallel;
};

uint64_t panel_bytes(const Weights& w, uint32_t width) {
  const uint64_t inputs = (uint64_t{w.inputs} + w.depth - 1) / w.depth * w.depth;
  const uint32_t element = 4u >> static_cast<uint32_t>(w.precision);
  return round_up(inputs * width * element);
}

// The widest panel, but for the last rows: the narrowest that is not a quarter empty.
uint32_t panel_width(const Kernels& kernels, uint32_t rows_left) {
  uint32_t width = kernels.panel_widths[0];
  for (const uint32_t offered : kernels.panel_widths)
    if (offered && rows_left <= offered - offered / 4) width = offered;
  return width;
}

std::vector<Panel> cut_into_panels(const Job& job, Scratch& scratch) {
  std::vector<Panel> panels;
  uint64_t bytes = 0;
  for (uint32_t row = 0; row < job.x.rows;) {
    const uint32_t width = panel_width(*job.call.kernels, job.x.rows - row);
    const uint32_t rows = std::min(job.x.rows - row, width);
    panels.push_back({nullptr, width, row, rows});
    bytes += panel_bytes(job.w, width);
    row += rows;
  }
  uint8_t* data = scratch.of(bytes);
  for (Panel& panel : panels) {
    panel.data = data;
    data += panel_bytes(job.w, panel.width);
  }
  return panels;
}

void pack_panels(const Job& job, const std::vector<Panel>& panels) {
  std::vector<std::pair<const Panel*, uint32_t>> units;
  for (const Panel& panel : panels)
    for (uint32_t slot = 0; slot < panel.width; slot += kSlots) units.emplace_back(&panel, slot);
  in_parallel(job.parallel, [&](int i, int n) {
    for (size_t u = units.size() * i / n; u < units.size() * (i + 1) / n; ++u) {
      const auto [panel, slot] = units[u];
      job.call.kernels->pack_panel(job.w, job.x, job.facts, *panel, slot, slot + kSlots);
    }
  });
}

// All groups of the first panel, then all of the second, and so on, cut where costs are equal.
void multiply_by_panels(const Job& job, Scratch& scratch) {
  const Weights& w = job.w;
  const std::vector<Panel> panels = cut_into_panels(job, scratch);
  pack_panels(job, panels);
  const uint64_t cost = cost_before(w, w.groups), total = cost * panels.size();
  const uint32_t step = std::max(16 / w.rows, 1u);  // one thread stores a whole line of outputs
  in_parallel(job.parallel, [&](int i, int n) {
    const uint64_t from = total * i / n, to = total * (i + 1) / n;
    for (uint64_t p = 0; p < panels.size(); ++p) {
      const uint64_t before = p * cost;
      const uint32_t begin = from <= before ? 0 : group_at(w, from - before, step);
      const uint32_t end = to <= before ? 0 : group_at(w, to - before, step);
      if (begin < end)
        job.call.kernels->multiply_panel(w, panels[p], job.facts, job.out, begin, end);
    }
  });
}

void multiply_by_rows(const Job& job, Scratch& scratch) {
  const Weights& w = job.w;
  const Kernels& kernels = *job.call.kernels;
  const uint64_t element = w.precision == Precision::int8 ? 1 : 4;
  // Room for a vector behind the last input, and rows that start in different lines.
  uint64_t stride = round_up((w.inputs + kSlots) * element);
  if (stride % kAliasingBytes == 0) stride += kCacheLine;
  uint8_t* packed = scratch.of(stride * job.x.rows);
  in_parallel(job.parallel, [&](int i, int n) {
    kernels.pack_rows(w.precision, job.x, job.facts, packed, stride / element,
                      uint64_t{job.x.rows} * i / n, uint64_t{job.x.rows} * (i + 1) / n);
  });
  const Input rows{packed, job.x.rows, w.inputs, stride / element};
  const uint64_t cost = cost_before(w, w.groups);
  in_parallel(job.parallel, [&](int i, int n) {
    const uint32_t begin = group_at(w, cost * i / n, 1), end = group_at(w, cost * (i + 1) / n, 1);
    if (begin < end) kernels.multiply_rows(w, rows, job.facts, job.out, begin, end);
  });
}

}  // namespace

void multiply(const Weights& w, const Call& call, const Input& x, const float* bias, float* y,
              uint64_t y_stride, const Parallel& parallel) {
  if (x.rows == 0) return;
  thread_local Scratch activations, of_rows;
  const uint64_t rows = uint64_t{x.rows} + kWidestPanel;  // the last panel may be partly empty
  auto* scale = reinterpret_cast<float*>(of_rows.of(2 * rows * sizeof(float)));
  std::fill_n(scale, rows, call.static_scale);
  const bool dynamic = call.static_scale == 0.0f;
  const RowFacts facts{scale, dynamic ? 128 : call.zero_point, dynamic, scale + rows};
  const Job job{w, call, x, facts, {y, y_stride, bias, call.activation}, parallel};
  if (call.kernels->by_panels(w, x.rows))
    multiply_by_panels(job, activations);
  else
    multiply_by_rows(job, activations);
}

}  // namespace edgeprune
