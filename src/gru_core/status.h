// Errors inside the core: one exception type that c_api.cpp turns into a gruc_status and words.
// Must not include anything of the core but the public header.
#pragma once
#include <exception>
#include <string>
#include <utility>

#include "gru_core/gru_core.h"

namespace gruc {

class Error : public std::exception {
 public:
  Error(gruc_status code, std::string message) : code_(code), message_(std::move(message)) {}
  gruc_status code() const noexcept { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  gruc_status code_;
  std::string message_;
};

[[noreturn]] inline void fail_argument(std::string message) { throw Error(GRUC_INVALID_ARGUMENT, std::move(message)); }

// Of a name that came from outside: its last 160 bytes, in ASCII, since messages must be text in any encoding and end
// where t_error of c_api.cpp does.
inline std::string printable(std::string text) {
  constexpr size_t kMost = 160;
  if (text.size() > kMost) text = "..." + text.substr(text.size() - kMost);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

}  // namespace gruc
