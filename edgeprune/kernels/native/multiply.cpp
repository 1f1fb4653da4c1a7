#include "multiply.hpp"

#include <algorithm>
#include <vector>

#include "scratch.hpp"
#include "work.hpp"

namespace edgeprune {
namespace {

// Rows that lie a multiple of this apart fall into the same lines of the first-level cache.
constexpr uint64_t kAliasingBytes = 2048;
// What finishing and storing the outputs of a group takes, in entries.
constexpr uint64_t kFinishingEntries = 16;
// Slots that a thread packs at once: the longest vector of floats.
constexpr uint32_t kSlots = 16;
// Rows that a thread takes through several layers at once, so that what is between them stays in
// its second cache. A multiple of the most rows that are summed together: the order of additions
// must not depend on how many threads there are.
constexpr uint32_t kRowsTogether = 32;
// Weights that every thread can hold in its second cache, beside what else is there.
constexpr uint64_t kCachedBytes = 512 << 10;

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
  const Kernels& kernels;
  const Parallel& parallel;
  uint32_t rows;
};

// Scales and poison of a layer's rows, with room for the last panel, which may be partly empty.
RowFacts facts_of(const Layer& layer, uint32_t rows, Scratch& scratch) {
  const uint64_t room = uint64_t{rows} + kWidestPanel;
  auto* scale = reinterpret_cast<float*>(scratch.of(2 * room * sizeof(float)));
  std::fill_n(scale, room, layer.static_scale);
  const bool dynamic = layer.static_scale == 0.0f;
  return {scale, dynamic ? 128 : layer.zero_point, dynamic, scale + room};
}

// The same panels of rows for every layer; where they lie is up to the layer.
std::vector<Panel> cut_into_panels(const Job& job) {
  std::vector<Panel> panels;
  for (uint32_t row = 0; row < job.rows;) {
    const uint32_t width = panel_width(job.kernels, job.rows - row);
    panels.push_back({nullptr, width, row, std::min(job.rows - row, width)});
    row += panels.back().rows;
  }
  return panels;
}

void place_panels(const Weights& w, std::vector<Panel>& panels, Scratch& scratch) {
  uint64_t bytes = 0;
  for (const Panel& panel : panels) bytes += panel_bytes(w, panel.width);
  uint8_t* data = scratch.of(bytes);
  for (Panel& panel : panels) {
    panel.data = data;
    data += panel_bytes(w, panel.width);
  }
}

void pack_panels(const Job& job, const Weights& w, const RowFacts& facts, const Input& x,
                 const std::vector<Panel>& panels) {
  std::vector<std::pair<const Panel*, uint32_t>> units;
  for (const Panel& panel : panels)
    for (uint32_t slot = 0; slot < panel.width; slot += kSlots) units.emplace_back(&panel, slot);
  in_parallel(job.parallel, [&](int i, int n) {
    for (size_t u = units.size() * i / n; u < units.size() * (i + 1) / n; ++u) {
      const auto [panel, slot] = units[u];
      job.kernels.pack_panel(w, x, facts, *panel, slot, slot + kSlots);
    }
  });
}

// Calls body(panel, begin, end): all groups of the first panel, then all of the second, and so on,
// cut among threads where costs are equal.
template <class Body>
void over_groups(const Job& job, const Weights& w, size_t panels, const Body& body) {
  const uint64_t cost = cost_before(w, w.groups), total = cost * panels;
  const uint32_t step = std::max(16 / w.rows, 1u);  // one thread stores a whole line of outputs
  in_parallel(job.parallel, [&](int i, int n) {
    const uint64_t from = total * i / n, to = total * (i + 1) / n;
    for (uint64_t p = 0; p < panels; ++p) {
      const uint64_t before = p * cost;
      const uint32_t begin = from <= before ? 0 : group_at(w, from - before, step);
      const uint32_t end = to <= before ? 0 : group_at(w, to - before, step);
      if (begin < end) body(p, begin, end);
    }
  });
}

// What a layer makes, in the panels of the one that follows.
void hand_over(const Job& job, const Layer& layer, const RowFacts& facts, const Layer& next,
               const RowFacts& next_facts, std::vector<Panel>& panels, Scratch& made,
               Scratch& packed) {
  const Weights& w = layer.weights;
  std::vector<float*> floats;
  uint64_t room = 0;
  for (const Panel& panel : panels) room += uint64_t{w.outputs} * panel.width;
  auto* at = reinterpret_cast<float*>(made.of(room * sizeof(float)));
  for (const Panel& panel : panels) {
    floats.push_back(at);
    at += uint64_t{w.outputs} * panel.width;
  }
  over_groups(job, w, panels.size(), [&](uint64_t p, uint32_t begin, uint32_t end) {
    const Columns columns{floats[p], panels[p].width, panels[p].width};
    job.kernels.multiply_to_floats(w, panels[p], facts, layer.bias, layer.activation, columns,
                                   begin, end);
  });
  const bool as_it_is = next.weights.precision == Precision::f32;
  if (!as_it_is) place_panels(next.weights, panels, packed);
  for (size_t p = 0; as_it_is && p < panels.size(); ++p) panels[p].data = floats[p];
  in_parallel(job.parallel, [&](int i, int n) {
    for (size_t p = panels.size() * i / n; p < panels.size() * (i + 1) / n; ++p)
      job.kernels.pack_floats(next.weights, floats[p], next_facts, panels[p]);
  });
}

// What is kept for each layer of a chain.
struct LayerScratch {
  Scratch facts, panels, floats;
};

// Memory that a thread keeps from call to call, borrowed for one: a pool may run another call on
// this thread while the first waits for its parts.
class Borrowed {
 public:
  explicit Borrowed(size_t layers) {
    std::swap(layers_, kept());
    if (layers_.size() < layers) layers_.resize(layers);
  }
  ~Borrowed() { std::swap(layers_, kept()); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  std::vector<LayerScratch>& layers() { return layers_; }

 private:
  static std::vector<LayerScratch>& kept() {
    thread_local std::vector<LayerScratch> memory;
    return memory;
  }
  std::vector<LayerScratch> layers_;
};

void multiply_by_panels(const Layer* layers, uint32_t count, const Job& job, const Input& x,
                        float* y, uint64_t y_stride, std::vector<LayerScratch>& scratch) {
  std::vector<Panel> panels = cut_into_panels(job);
  RowFacts facts = facts_of(layers[0], job.rows, scratch[0].facts);
  place_panels(layers[0].weights, panels, scratch[0].panels);
  pack_panels(job, layers[0].weights, facts, x, panels);
  for (uint32_t i = 0; i + 1 < count; ++i) {
    const RowFacts next = facts_of(layers[i + 1], job.rows, scratch[i + 1].facts);
    hand_over(job, layers[i], facts, layers[i + 1], next, panels, scratch[i].floats,
              scratch[i + 1].panels);
    facts = next;
  }
  const Layer& last = layers[count - 1];
  const Output out{y, y_stride, last.bias, last.activation};
  over_groups(job, last.weights, panels.size(), [&](uint64_t p, uint32_t begin, uint32_t end) {
    job.kernels.multiply_panel(last.weights, panels[p], facts, out, begin, end);
  });
}

void multiply_by_rows(const Layer& layer, const Job& job, const Input& x, const Output& out,
                      LayerScratch& scratch) {
  const Weights& w = layer.weights;
  const RowFacts facts = facts_of(layer, job.rows, scratch.facts);
  const uint64_t element = w.precision == Precision::int8 ? 1 : 4;
  // Room for a vector behind the last input, and rows that start in different lines.
  uint64_t stride = round_up((w.inputs + kSlots) * element);
  if (stride % kAliasingBytes == 0) stride += kCacheLine;
  uint8_t* packed = scratch.panels.of(stride * x.rows);
  in_parallel(job.parallel, [&](int i, int n) {
    job.kernels.pack_rows(w.precision, x, facts, packed, stride / element,
                          uint64_t{x.rows} * i / n, uint64_t{x.rows} * (i + 1) / n);
  });
  const Input rows{packed, x.rows, w.inputs, stride / element};
  const uint64_t cost = cost_before(w, w.groups);
  in_parallel(job.parallel, [&](int i, int n) {
    const uint32_t begin = group_at(w, cost * i / n, 1), end = group_at(w, cost * (i + 1) / n, 1);
    if (begin < end) job.kernels.multiply_rows(w, rows, facts, out, begin, end);
  });
}

// Layer after layer, each by what suits it.
void multiply_each(const Layer* layers, uint32_t count, const Job& job, Input x, float* y,
                   uint64_t y_stride, std::vector<LayerScratch>& scratch) {
  for (uint32_t i = 0; i < count; ++i) {
    const Layer& layer = layers[i];
    const bool last = i + 1 == count;
    const uint64_t stride = last ? y_stride : layer.weights.outputs;
    auto* made = last ? y
                      : reinterpret_cast<float*>(
                            scratch[i].floats.of(job.rows * stride * sizeof(float)));
    if (job.kernels.by_panels(layer.weights, job.rows)) {
      multiply_by_panels(&layer, 1, job, x, made, stride, scratch);
    } else {
      const Output out{made, stride, layer.bias, layer.activation};
      multiply_by_rows(layer, job, x, out, scratch[i]);
    }
    x = {made, job.rows, layer.weights.outputs, stride};
  }
}

// At most so many of the rows, from one on.
Input rows_from(const Input& x, uint64_t from, uint64_t most) {
  const auto* at = static_cast<const float*>(x.data) + from * x.stride;
  return {at, static_cast<uint32_t>(std::min(most, x.rows - from)), x.inputs, x.stride};
}

// Some rows through all layers, then the next.
void multiply_in_turns(const Layer* layers, uint32_t count, const Job& job, const Input& x,
                       float* y, uint64_t y_stride, std::vector<LayerScratch>& scratch) {
  const uint64_t together = uint64_t{kRowsTogether} * std::max(job.parallel.threads, 1);
  for (uint64_t from = 0; from < job.rows; from += together) {
    const Input some = rows_from(x, from, together);
    multiply_each(layers, count, {job.kernels, job.parallel, some.rows}, some, y + from * y_stride,
                  y_stride, scratch);
  }
}

// All rows through all layers.
void multiply_here(const Layer* layers, uint32_t count, const Job& job, const Input& x, float* y,
                   uint64_t y_stride) {
  Borrowed scratch(count);
  uint32_t by_panels = 0;
  for (uint32_t i = 0; i < count; ++i)
    by_panels += job.kernels.by_panels(layers[i].weights, job.rows);
  if (by_panels == count)
    multiply_by_panels(layers, count, job, x, y, y_stride, scratch.layers());
  else if (by_panels || count == 1)
    multiply_each(layers, count, job, x, y, y_stride, scratch.layers());
  else
    multiply_in_turns(layers, count, job, x, y, y_stride, scratch.layers());
}

uint64_t value_bytes(const Weights& w) {
  return uint64_t{w.begin[w.groups]} * w.rows * w.merge *
         (4u >> static_cast<uint32_t>(w.precision));
}

// How many rows each thread takes through all layers by itself, so that threads wait for each
// other but once. Zero where some would take more panels than others; where a share would take
// another way than all rows together, so that bits would differ; and where rows go one by one past
// weights of which only a thread's part stays in its caches.
uint32_t rows_for_each(const Layer* layers, uint32_t count, const Job& job) {
  const uint64_t threads = std::max(job.parallel.threads, 1);
  const uint64_t panels = (uint64_t{job.rows} + kWidestPanel - 1) / kWidestPanel;
  if (threads == 1 || panels % threads != 0) return 0;
  const auto share = static_cast<uint32_t>(panels / threads * kWidestPanel);
  const uint32_t last = (job.rows - 1) % share + 1;
  uint64_t by_rows_bytes = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Weights& w = layers[i].weights;
    const bool by_panels = job.kernels.by_panels(w, job.rows);
    if (!by_panels) by_rows_bytes += value_bytes(w);
    for (const uint32_t rows : {share, last})
      if (job.kernels.by_panels(w, rows) != by_panels) return 0;
  }
  return by_rows_bytes <= kCachedBytes ? share : 0;
}

}  // namespace

void multiply(const Layer* layers, uint32_t count, const Kernels& kernels, const Input& x, float* y,
              uint64_t y_stride, const Parallel& parallel) {
  if (x.rows == 0) return;
  const Job all{kernels, parallel, x.rows};
  const uint64_t share = rows_for_each(layers, count, all);
  if (share == 0) return multiply_here(layers, count, all, x, y, y_stride);
  const Parallel alone{1, nullptr};
  const auto threads = static_cast<uint64_t>(parallel.threads);
  in_parallel(parallel, [&](int i, int n) {
    for (uint64_t part = threads * i / n; part < threads * (i + 1) / n; ++part) {
      const Input own = rows_from(x, share * part, share);
      multiply_here(layers, count, {kernels, alone, own.rows}, own, y + share * part * y_stride,
                    y_stride);
    }
  });
}

}  // namespace edgeprune
