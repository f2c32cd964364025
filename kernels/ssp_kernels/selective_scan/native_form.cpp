// `selective_scan` for CPUs: forward, backward and step, vectorised over the states of a feature.
//
// s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t,  y_t = C_t s_t      (Gu and Dao, 2023, algorithm 2)
//
// Shapes as in the Python signature: x, dt, y (B, L, D); A (D, N); B, C (B, L, N); states (B, D, N); all contiguous,
// except the states of a step, whose rows are `stride` apart. Work is split into (row, group of features) tasks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

constexpr int64_t kSegment = 32;  // tokens between two kept states
constexpr int64_t kGroup = 16;    // features of one task

// exp by 2^k * polynomial (Cody and Waite's reduction), 1 ulp or so; results below the smallest normal number become 0.
inline float exponential(float x) {
  const float clamped = std::min(x, 88.0f);
  const float k = std::nearbyint(clamped * 1.44269504f);
  const float r = (clamped - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(std::max(k, -127.0f)) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.3f ? 0.0f : p * scale;
}

inline double exponential(double x) { return std::exp(x); }

struct Sizes {
  int64_t B, L, D, N;
  int64_t groups() const { return (D + kGroup - 1) / kGroup; }
  int64_t segments() const { return (L + kSegment - 1) / kSegment; }
};

// Advances one feature's state by one token and returns its output. FIXED is N, or 0 if it is known at run time only.
template <typename T, int FIXED>
inline T advance(T x, T dt, const T* A, const T* B, const T* C, const T* from, T* to, T* decays, int64_t n_states) {
  const int64_t N = FIXED ? FIXED : n_states;
  const T u = dt * x;
  T y = 0;
#pragma omp simd reduction(+ : y)
  for (int64_t n = 0; n < N; ++n) {
    const T decay = exponential(dt * A[n]);
    const T s = decay * from[n] + u * B[n];
    if (decays) decays[n] = decay;
    to[n] = s;
    y += s * C[n];
  }
  return y;
}

template <typename T, int FIXED>
void forward(Sizes z, const T* x, const T* dt, const T* A, const T* B, const T* C, const T* initial, T* y, T* final,
             T* kept) {
  const int64_t tasks = z.B * z.groups();
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t b = task / z.groups(), first = task % z.groups() * kGroup, last = std::min(first + kGroup, z.D);
    T* state = final + b * z.D * z.N;
    std::copy(initial + (b * z.D + first) * z.N, initial + (b * z.D + last) * z.N, state + first * z.N);
    for (int64_t t = 0; t < z.L; ++t) {
      const int64_t row = b * z.L + t;
      if (kept && t % kSegment == 0)
        std::copy(state + first * z.N, state + last * z.N,
                  kept + ((b * z.segments() + t / kSegment) * z.D + first) * z.N);
      for (int64_t d = first; d < last; ++d)
        y[row * z.D + d] = advance<T, FIXED>(x[row * z.D + d], dt[row * z.D + d], A + d * z.N, B + row * z.N,
                                             C + row * z.N, state + d * z.N, state + d * z.N, nullptr, z.N);
    }
  }
}

// Runs one segment backwards for one feature. `states` holds the state before each of its tokens and after the last,
// `decays` each token's exp(dt A), `g` the gradient with respect to the state, which moves to the segment's start.
template <typename T, int FIXED>
inline void retreat(Sizes z, int64_t row, int64_t d, int64_t count, const T* x, const T* dt, const T* A, const T* B,
                    const T* C, const T* gy, const T* states, const T* decays, T* g, T* gx, T* gdt, T* gA, T* gB,
                    T* gC) {
  const int64_t N = FIXED ? FIXED : z.N;
  for (int64_t t = count - 1; t >= 0; --t) {
    const int64_t at = (row + t) * z.D + d;
    const T *b = B + (row + t) * N, *c = C + (row + t) * N, *before = states + t * N, *after = before + N;
    const T *decay = decays + t * N;
    T *gb = gB + t * N, *gc = gC + t * N;
    const T step = dt[at], u = step * x[at], out = gy[at];
    T through_b = 0, through_a = 0;
#pragma omp simd reduction(+ : through_b, through_a)
    for (int64_t n = 0; n < N; ++n) {
      const T total = g[n] + out * c[n];
      const T decayed = total * decay[n] * before[n];
      gc[n] += out * after[n];
      gb[n] += total * u;
      gA[n] += decayed * step;
      through_b += total * b[n];
      through_a += decayed * A[n];
      g[n] = total * decay[n];
    }
    gx[at] = through_b * step;
    gdt[at] = through_b * x[at] + through_a;
  }
}

// gB and gC come as partial sums, one (B, L, N) for each group of features; gA as one (D, N) for each row.
template <typename T, int FIXED>
void backward(Sizes z, const T* x, const T* dt, const T* A, const T* B, const T* C, const T* kept, const T* gy,
              const T* gfinal, T* gx, T* gdt, T* gA, T* gB, T* gC, T* ginitial) {
  const int64_t tasks = z.B * z.groups();
#pragma omp parallel
  {
    std::vector<T> states((kSegment + 1) * z.N), decays(kSegment * z.N);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t b = task / z.groups(), group = task % z.groups();
      const int64_t first = group * kGroup, last = std::min(first + kGroup, z.D);
      T* g = ginitial + b * z.D * z.N;
      std::copy(gfinal + (b * z.D + first) * z.N, gfinal + (b * z.D + last) * z.N, g + first * z.N);
      for (int64_t segment = z.segments() - 1; segment >= 0; --segment) {
        const int64_t start = segment * kSegment, count = std::min(kSegment, z.L - start), row = b * z.L + start;
        T* gb = gB + ((group * z.B + b) * z.L + start) * z.N;
        T* gc = gC + ((group * z.B + b) * z.L + start) * z.N;
        for (int64_t d = first; d < last; ++d) {
          const T* from = kept + ((b * z.segments() + segment) * z.D + d) * z.N;
          std::copy(from, from + z.N, states.data());
          for (int64_t t = 0; t < count; ++t) {
            const int64_t at = (row + t) * z.D + d;
            advance<T, FIXED>(x[at], dt[at], A + d * z.N, B + (row + t) * z.N, C + (row + t) * z.N,
                              &states[t * z.N], &states[(t + 1) * z.N], &decays[t * z.N], z.N);
          }
          retreat<T, FIXED>(z, row, d, count, x, dt, A + d * z.N, B, C, gy, states.data(), decays.data(), g + d * z.N,
                            gx, gdt, gA + (b * z.D + d) * z.N, gb, gc);
        }
      }
    }
  }
}

// `from` and `to` may be the same memory.
template <typename T, int FIXED>
void step(Sizes z, const T* x, const T* dt, const T* A, const T* B, const T* C, const T* from, int64_t from_stride,
          T* to, int64_t to_stride, T* y) {
  const int64_t tasks = z.B * z.groups();
#pragma omp parallel for schedule(static) if (tasks * kGroup * z.N > 65536)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t b = task / z.groups(), first = task % z.groups() * kGroup, last = std::min(first + kGroup, z.D);
    for (int64_t d = first; d < last; ++d)
      y[b * z.D + d] =
          advance<T, FIXED>(x[b * z.D + d], dt[b * z.D + d], A + d * z.N, B + b * z.N, C + b * z.N,
                            from + b * from_stride + d * z.N, to + b * to_stride + d * z.N, nullptr, z.N);
  }
}

// Calls `run` with the number of states as a compile-time constant where it is a usual one.
template <typename Run>
void with_states(int64_t N, Run run) {
  if (N == 8) return run(std::integral_constant<int, 8>{});
  if (N == 16) return run(std::integral_constant<int, 16>{});
  if (N == 64) return run(std::integral_constant<int, 64>{});
  run(std::integral_constant<int, 0>{});
}

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                             \
  extern "C" void forward_##SUFFIX(int64_t batch, int64_t L, int64_t D, int64_t N, const T* x, const T* dt,           \
                                   const T* A, const T* B, const T* C, const T* initial, T* y, T* final, T* kept) {   \
    with_states(N, [&](auto fixed) {                                                                                  \
      forward<T, fixed()>({batch, L, D, N}, x, dt, A, B, C, initial, y, final, kept);                                 \
    });                                                                                                               \
  }                                                                                                                   \
  extern "C" void backward_##SUFFIX(int64_t batch, int64_t L, int64_t D, int64_t N, const T* x, const T* dt,          \
                                    const T* A, const T* B, const T* C, const T* kept, const T* gy, const T* gfinal,  \
                                    T* gx, T* gdt, T* gA, T* gB, T* gC, T* ginitial) {                                \
    with_states(N, [&](auto fixed) {                                                                                  \
      backward<T, fixed()>({batch, L, D, N}, x, dt, A, B, C, kept, gy, gfinal, gx, gdt, gA, gB, gC, ginitial);        \
    });                                                                                                               \
  }                                                                                                                   \
  extern "C" void step_##SUFFIX(int64_t batch, int64_t D, int64_t N, const T* x, const T* dt, const T* A, const T* B, \
                                const T* C, const T* from, int64_t from_stride, T* to, int64_t to_stride, T* y) {     \
    with_states(N, [&](auto fixed) {                                                                                  \
      step<T, fixed()>({batch, 1, D, N}, x, dt, A, B, C, from, from_stride, to, to_stride, y);                        \
    });                                                                                                               \
  }

EXPORT(float, f32)
EXPORT(double, f64)
