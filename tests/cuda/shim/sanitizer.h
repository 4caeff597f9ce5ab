// Whether AddressSanitizer watches this build, and what it wants to be told of stacks.
// Must not include anything else.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define GRUC_SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRUC_SHIM_ASAN 1
#endif
#endif
#if defined(GRUC_SHIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define GRUC_SHIM_ASAN 0
#endif
