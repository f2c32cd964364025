// `causal_conv1d` for CPUs, vectorised over the features: y_t = bias + sum_k w_k x_{t-K+1+k}.
//
// Shapes: x, y (B, L, D); weights (K, D), transposed so that a tap's weights are contiguous; the inputs before the first
// (B, K - 1, D), oldest first. Those of a step are (B, D, K - 1), rows `stride` apart, as in the Python signature.
#include <algorithm>
#include <cstdint>

namespace {

struct Sizes {
  int64_t B, L, D, K;
};

// Input number t of row b; t may be as small as 1 - K.
template <typename T>
inline T* input(const Sizes& z, T* x, T* before, int64_t b, int64_t t) {
  return t < 0 ? before + (b * (z.K - 1) + t + z.K - 1) * z.D : x + (b * z.L + t) * z.D;
}

template <typename T>
void forward(const Sizes& z, const T* x, const T* before, const T* weights, const T* bias, T* y) {
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t b = 0; b < z.B; ++b)
    for (int64_t t = 0; t < z.L; ++t) {
      T* out = y + (b * z.L + t) * z.D;
      if (bias)
        std::copy(bias, bias + z.D, out);
      else
        std::fill(out, out + z.D, T(0));
      for (int64_t k = 0; k < z.K; ++k) {
        const T *from = input(z, x, before, b, t - z.K + 1 + k), *w = weights + k * z.D;
#pragma omp simd
        for (int64_t d = 0; d < z.D; ++d) out[d] += w[d] * from[d];
      }
    }
}

// gx and gbefore start at zero; gweights holds one (K, D) for each row.
template <typename T>
void backward(const Sizes& z, const T* x, const T* before, const T* weights, const T* gy, T* gx, T* gbefore,
              T* gweights) {
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < z.B; ++b)
    for (int64_t t = 0; t < z.L; ++t) {
      const T* g = gy + (b * z.L + t) * z.D;
      for (int64_t k = 0; k < z.K; ++k) {
        const int64_t source = t - z.K + 1 + k;
        const T *from = input(z, x, before, b, source), *w = weights + k * z.D;
        T *to = input(z, gx, gbefore, b, source), *gw = gweights + (b * z.K + k) * z.D;
#pragma omp simd
        for (int64_t d = 0; d < z.D; ++d) {
          to[d] += w[d] * g[d];
          gw[d] += from[d] * g[d];
        }
      }
    }
}

// `from` and `to` may be the same memory.
template <typename T>
void step(const Sizes& z, const T* x, const T* weights, const T* bias, const T* from, int64_t from_stride, T* to,
          int64_t to_stride, T* y) {
  const int64_t kept = z.K - 1;
  for (int64_t b = 0; b < z.B; ++b)
    for (int64_t d = 0; d < z.D; ++d) {
      const T *old = from + b * from_stride + d * kept, newest = x[b * z.D + d];
      T* next = to + b * to_stride + d * kept;
      T sum = (bias ? bias[d] : T(0)) + weights[kept * z.D + d] * newest;
      for (int64_t k = 0; k < kept; ++k) sum += weights[k * z.D + d] * old[k];
      for (int64_t k = 0; k + 1 < kept; ++k) next[k] = old[k + 1];
      if (kept) next[kept - 1] = newest;
      y[b * z.D + d] = sum;
    }
}

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                             \
  extern "C" void forward_##SUFFIX(int64_t B, int64_t L, int64_t D, int64_t K, const T* x, const T* before,           \
                                   const T* weights, const T* bias, T* y) {                                           \
    forward<T>({B, L, D, K}, x, before, weights, bias, y);                                                            \
  }                                                                                                                   \
  extern "C" void backward_##SUFFIX(int64_t B, int64_t L, int64_t D, int64_t K, const T* x, const T* before,          \
                                    const T* weights, const T* gy, T* gx, T* gbefore, T* gweights) {                  \
    backward<T>({B, L, D, K}, x, before, weights, gy, gx, gbefore, gweights);                                         \
  }                                                                                                                   \
  extern "C" void step_##SUFFIX(int64_t B, int64_t D, int64_t K, const T* x, const T* weights, const T* bias,         \
                                const T* from, int64_t from_stride, T* to, int64_t to_stride, T* y) {                 \
    step<T>({B, 1, D, K}, x, weights, bias, from, from_stride, to, to_stride, y);                                     \
  }

EXPORT(float, f32)
EXPORT(double, f64)
