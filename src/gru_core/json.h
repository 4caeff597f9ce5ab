// JSON (RFC 8259) as values, for the heads of model files. Whatever the text holds, it is read or refused: nesting is
// bounded, no name stands twice in an object, numbers stay text until somebody asks.
// Must not include anything of the core but status.h.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gruc {

struct Json {
  enum Kind { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

  Kind kind = kNull;
  std::string text;                                   // of a string, decoded to UTF-8; of a number, as it stands
  std::vector<Json> items;                            // of an array
  std::vector<std::pair<std::string, Json>> members;  // of an object, in their order

  const Json* find(std::string_view name) const;  // nullptr: no such member, or no object
  bool as_int(int64_t& value) const;              // false: no whole number without point or exponent, or beyond 64 bits
  bool as_number(double& value) const;            // false: no number, or none that is finite
};

// Throws Error(GRUC_INVALID_ARGUMENT) that begins with `where` and names the byte.
Json parse_json(std::string_view text, const std::string& where);

}  // namespace gruc
