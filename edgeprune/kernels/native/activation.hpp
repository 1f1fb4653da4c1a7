// Activations on vectors of floats, close to the last bits of float32.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace edgeprune::EDGEPRUNE_ISA {

// e to the x for x <= 0, by 2**n times a polynomial on [-0.5, 0.5]; relative error below 2e-7.
EDGEPRUNE_INLINE Floats exp_negative(Floats x) {
  const Floats scaled = x * 1.44269504f;
  const Floats bounded = scaled < -126.0f ? Floats{} - 126.0f : scaled;
  const Floats shifted = bounded + 12582912.0f;  // the sum's last bits are the rounded integer
  const Floats fraction = bounded - (shifted - 12582912.0f);
  Floats power = Floats{} + 1.5403530e-4f;
  power = power * fraction + 1.33335581e-3f;
  power = power * fraction + 9.61812911e-3f;
  power = power * fraction + 5.55041087e-2f;
  power = power * fraction + 2.40226507e-1f;
  power = power * fraction + 6.93147181e-1f;
  power = power * fraction + 1.0f;
  // Unsigned, because what a NaN makes of this may wrap.
  const Words exponent = ((Words)shifted - 0x4B400000u) << 23;
  return (Floats)((Words)power + exponent);
}

// The error function of z by Abramowitz and Stegun, 7.1.26: |error| <= 1.5e-7.
EDGEPRUNE_INLINE Floats erf(Floats z) {
  const Floats size = (Floats)((Words)z & 0x7FFFFFFFu);
  const Floats t = 1.0f / (1.0f + 0.3275911f * size);
  Floats sum = Floats{} + 1.061405429f;
  sum = sum * t - 1.453152027f;
  sum = sum * t + 1.421413741f;
  sum = sum * t - 0.284496736f;
  sum = sum * t + 0.254829592f;
  const Floats value = 1.0f - sum * t * exp_negative(-size * size);
  return (Floats)((Words)value | ((Words)z & 0x80000000u));
}

EDGEPRUNE_INLINE Floats relu(Floats x) { return x < 0.0f ? Floats{} : x; }  // keeps a NaN

EDGEPRUNE_INLINE Floats gelu(Floats x) { return 0.5f * x * (1.0f + erf(0.70710678f * x)); }

EDGEPRUNE_INLINE Floats silu(Floats x) {
  // 1 / (1 + e**-x), from the side on which the power is small.
  const Floats power = exp_negative(-(Floats)((Words)x & 0x7FFFFFFFu));
  const Floats large = 1.0f / (1.0f + power);
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
