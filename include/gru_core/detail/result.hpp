// What calls of gru_core.hpp take and give back: spans, and a status or a result, with or without exceptions.
// Must not know what a network is, nor include anything of the core but its C header.
#ifndef GRU_CORE_DETAIL_RESULT_HPP
#define GRU_CORE_DETAIL_RESULT_HPP

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "gru_core/gru_core.h"

// Define GRUC_NO_EXCEPTIONS to have none; where the compiler has none it is set. Either way the same functions return
// the same Status or Result; without exceptions these lack check() and value(), which throw. The two ways are two
// namespaces to the linker, so that files of both may stand in one program.
#if !defined(GRUC_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#define GRUC_NO_EXCEPTIONS
#endif
#if defined(GRUC_NO_EXCEPTIONS)
#define GRUC_MODE without_exceptions
#else
#include <stdexcept>
#define GRUC_MODE with_exceptions
#endif

namespace gru_core {
inline namespace GRUC_MODE {

// A pointer and a count, made of any array, vector or std::span, and one to std::span. Not std::span itself, for files
// of C++17 and C++20 may stand in one program too.
template <class T>
class Span {
  template <class Container>
  using Element = std::remove_pointer_t<decltype(std::data(std::declval<Container&>()))>;
  template <class Container>
  using IfFits = std::enable_if_t<std::is_convertible_v<Element<Container> (*)[], T (*)[]>,
                                  decltype(std::size(std::declval<Container&>()))>;

 public:
  using value_type = std::remove_cv_t<T>;

  constexpr Span() noexcept = default;
  constexpr Span(T* data, size_t size) noexcept : data_(data), size_(size) {}
  template <class Container, class = IfFits<Container>>
  constexpr Span(Container& container) noexcept : data_(std::data(container)), size_(std::size(container)) {}
  template <class Container, class = IfFits<const Container>>
  constexpr Span(const Container& container) noexcept : data_(std::data(container)), size_(std::size(container)) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](size_t i) const noexcept { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

#if !defined(GRUC_NO_EXCEPTIONS)
class Error : public std::runtime_error {
 public:
  Error(gruc_status code, const std::string& message) : std::runtime_error(message), code_(code) {}
  gruc_status code() const noexcept { return code_; }

 private:
  gruc_status code_;
};
#endif

// How a call without a value ended. Costs nothing to make: its words are put together when somebody asks. Those of the
// library are the thread's (gruc_last_error), so ask before this thread's next call that fails.
class [[nodiscard]] Status {
 public:
  static constexpr size_t kWords = 512;  // as many characters as gruc_last_error has at most

  Status() noexcept = default;
  Status(gruc_status code) noexcept : code_(code) {}
  static Status wrong_size(const char* argument, size_t expected, size_t got) noexcept {
    return Status(GRUC_INVALID_ARGUMENT, Source::kExactSize, argument, expected, got);
  }
  static Status too_small(const char* argument, size_t expected, size_t got) noexcept {
    return Status(GRUC_INVALID_ARGUMENT, Source::kLeastSize, argument, expected, got);
  }
  static Status out_of_range(const char* argument, size_t limit, size_t got) noexcept {
    return Status(GRUC_INVALID_ARGUMENT, Source::kLimit, argument, limit, got);
  }
  static Status failed(gruc_status code, const char* words) noexcept {
    return Status(code, Source::kWords, words, 0, 0);
  }

  bool ok() const noexcept { return code_ == GRUC_OK; }
  gruc_status code() const noexcept { return code_; }
  // Empty where all went well.
  std::string message() const {
    char words[kWords];
    write(words);
    return words;
  }
  void write(char (&words)[kWords]) const noexcept {
    if (ok())
      words[0] = '\0';
    else if (source_ == Source::kLibrary || source_ == Source::kWords)
      std::snprintf(words, kWords, "%s", source_ == Source::kLibrary ? gruc_last_error() : text_);
    else if (expected_ == std::numeric_limits<size_t>::max())
      std::snprintf(words, kWords, "%s: expected sizes and strides that are not negative and fit memory", text_);
    else if (source_ == Source::kLimit)
      std::snprintf(words, kWords, "%s: expected less than %zu, got %zu", text_, expected_, got_);
    else
      std::snprintf(words, kWords, "%s: expected %zu elements%s, got %zu", text_, expected_,
                    source_ == Source::kLeastSize ? " or more" : "", got_);
  }
#if !defined(GRUC_NO_EXCEPTIONS)
  void check() const {
    if (!ok()) throw Error(code_, message());
  }
#endif

 private:
  enum class Source { kLibrary, kWords, kExactSize, kLeastSize, kLimit };
  Status(gruc_status code, Source source, const char* text, size_t expected, size_t got) noexcept
      : code_(code), source_(source), text_(text), expected_(expected), got_(got) {}

  gruc_status code_ = GRUC_OK;
  Source source_ = Source::kLibrary;
  const char* text_ = nullptr;  // all of it, or an argument's name
  size_t expected_ = 0, got_ = 0;
};

// A value, or why there is none, in words of its own.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) noexcept : value_(std::move(value)) {}
  Result(const Status& failure) noexcept : code_(failure.code()) {
    assert(!failure.ok());
    failure.write(words_);
  }

  bool ok() const noexcept { return value_.has_value(); }
  gruc_status code() const noexcept { return code_; }
  const char* message() const noexcept { return words_; }
  // To hand a failure on, with the words of this result.
  Status status() const& noexcept { return ok() ? Status() : Status::failed(code_, words_); }
  Status status() const&& = delete;

  // Of a result that is ok.
  T& operator*() & noexcept { return assert(ok()), *value_; }
  const T& operator*() const& noexcept { return assert(ok()), *value_; }
  T operator*() && noexcept { return assert(ok()), std::move(*value_); }
  T* operator->() noexcept { return &**this; }
  const T* operator->() const noexcept { return &**this; }
#if !defined(GRUC_NO_EXCEPTIONS)
  // The value, or an Error is thrown.
  T& value() & { return check(), **this; }
  const T& value() const& { return check(), **this; }
  T value() && { return check(), *std::move(*this); }
#endif

 private:
#if !defined(GRUC_NO_EXCEPTIONS)
  void check() const {
    if (!ok()) throw Error(code_, words_);
  }
#endif

  std::optional<T> value_;
  gruc_status code_ = GRUC_OK;
  char words_[Status::kWords] = "";
};

}  // namespace GRUC_MODE
}  // namespace gru_core
#endif  // GRU_CORE_DETAIL_RESULT_HPP
