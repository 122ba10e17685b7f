// Purpose: which consumer a kernel is made with.
// Responsible for: that choice, from where the softmax takes its scores.
// Leaves to others: everything else.
#pragma once

#include "ladder/consumer.cuh"
#include "ladder/consumer_registers.cuh"
#include "ladder/consumer_streaming.cuh"

namespace sdpa {

template <class Traits, uint32_t kSoftmax = Traits::Toggles::kSoftmax>
struct SelectConsumer {
  using Type = Consumer<Traits>;
};
template <class Traits>
struct SelectConsumer<Traits, kSoftmaxRegisters> {
  using Type = RegisterConsumer<Traits>;
};
template <class Traits>
struct SelectConsumer<Traits, kSoftmaxWarp> {
  using Type = StreamingConsumer<Traits>;
};

}  // namespace sdpa
