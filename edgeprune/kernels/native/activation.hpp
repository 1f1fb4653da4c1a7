// Activations on vectors of floats, close to the last bits of float32.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

// e to the x for x <= 0, by 2**n times a polynomial on [-0.5, 0.5]; relative error below 2e-7.
EDGEPRUNE_INLINE Floats exp_negative(Floats x) {
  const Floats scaled = x * 1.44269504f;
  const Floats bounded = greater_of(Floats{} - 126.0f, scaled);
  const Floats shifted = bounded + kRounding;
  const Floats fraction = bounded - (shifted - kRounding);
  Floats power = Floats{} + 1.5403530e-4f;
  power = power * fraction + 1.33335581e-3f;
  power = power * fraction + 9.61812911e-3f;
  power = power * fraction + 5.55041087e-2f;
  power = power * fraction + 2.40226507e-1f;
  power = power * fraction + 6.93147181e-1f;
  power = power * fraction + 1.0f;
  // Unsigned, because what a NaN makes of this may wrap.
  const Words exponent = ((Words)shifted - kRoundingBits) << 23;
  const Floats result = (Floats)((Words)power + exponent);
  return scaled < -126.0f ? Floats{} : result;
}

EDGEPRUNE_INLINE Floats relu(Floats x) { return greater_of(Floats{}, x); }

// x times its share of the normal distribution: a half and an odd rational function, fitted by
// least squares; the error is below 1e-6, or below 2e-7 x. Behind the ends the share is one or
// nothing to float32.
EDGEPRUNE_INLINE Floats gelu(Floats x) {
  constexpr float kUpper[] = {2.4732039e-8f, 6.4078313e-6f, 1.568512e-4f,
                              4.608583e-3f,  3.254352e-2f,  3.9894226e-1f};
  constexpr float kLower[] = {1.2588908e-6f, 7.049283e-5f, 1.8171441e-3f,
                              2.79261e-2f,   2.4824086e-1f, 1.0f};
  constexpr float kEnd = 5.2f;
  const Floats factor = greater_of(Floats{} - kEnd, x);
  const Floats bounded = smaller_of(Floats{} + kEnd, factor);
  const Floats square = bounded * bounded;
  Floats upper = Floats{} + kUpper[0], lower = Floats{} + kLower[0];
#pragma GCC unroll 5
  for (int i = 1; i < 6; ++i) {
    upper = upper * square + kUpper[i];
    lower = lower * square + kLower[i];
  }
  return factor * (0.5f + bounded * upper * reciprocal(lower));
}

EDGEPRUNE_INLINE Floats silu(Floats x) {
  // 1 / (1 + e**-x), from the side on which the power is small.
  const Floats power = exp_negative(-(Floats)((Words)x & 0x7FFFFFFFu));
  const Floats large = reciprocal(1.0f + power);
  return x * (x < 0.0f ? power * large : large);
}

// In place. To add one: a function above, a name in `Activation`, a line here.
template <int Count>
EDGEPRUNE_INLINE void activate(Floats (&values)[Count], Activation activation) {
  const auto apply = [&](auto function) EDGEPRUNE_LAMBDA {
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) values[i] = function(values[i]);
  };
  switch (activation) {
    case Activation::none: return;
    case Activation::relu: return apply([](Floats x) EDGEPRUNE_LAMBDA { return relu(x); });
    case Activation::gelu: return apply([](Floats x) EDGEPRUNE_LAMBDA { return gelu(x); });
    case Activation::silu: return apply([](Floats x) EDGEPRUNE_LAMBDA { return silu(x); });
  }
}

}  // namespace edgeprune::EDGEPRUNE_ISA
