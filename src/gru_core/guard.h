// What the C ABIs share: no exception leaves them, and the reason in words stays behind. The only room with a try.
// To be included by one source of a library: each has words of its own. Must not include weights or kernels.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "status.h"

namespace gruc::abi {
namespace {

// A fixed buffer: reporting that memory ran out must not need memory.
thread_local char t_error[512] = "";

gruc_status report(gruc_status status, const char* what) noexcept {
  std::snprintf(t_error, sizeof t_error, "%s", what);
  return status;
}

template <class Body>
gruc_status guarded(Body body) noexcept {
  try {
    body();
    return GRUC_OK;
  } catch (const gruc::Error& e) {
    return report(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return report(GRUC_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return report(GRUC_INTERNAL, e.what());
  } catch (...) {
    return report(GRUC_INTERNAL, "an exception of unknown type");
  }
}

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) gruc::fail_argument(std::string(name) + ": expected a pointer, got NULL");
}

// Defaults for a caller's struct, which may be of another release: what it has, it gets, and its size.
template <class Struct>
void fill(Struct* out, uint32_t struct_size, Struct defaults) {
  defaults.struct_size = struct_size;
  std::memset(out, 0, struct_size);
  std::memcpy(out, &defaults, std::min<size_t>(struct_size, sizeof defaults));
}

}  // namespace
}  // namespace gruc::abi
