// Whether a sanitizer watches this build: it brings a heap, locks and instructions of its own.
// Must not include anything.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GRUC_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(realtime_sanitizer)
#define GRUC_SANITIZED 1
#endif
#endif
#ifndef GRUC_SANITIZED
#define GRUC_SANITIZED 0
#endif
