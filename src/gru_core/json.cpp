// See json.h.
#include "json.h"

#include <algorithm>
#include <cmath>
#include <locale>
#include <sstream>

#include "status.h"

namespace gruc {
namespace {

constexpr int kMaxDepth = 16;  // a model's head has 4
// A value takes up to 100 bytes of memory, its text 2. The largest network's 24,577 tensors are 221,000 of them.
constexpr int kMaxValues = 1 << 18;

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json whole() {
    Json value = this->value(0);
    skip_space();
    if (at_ != text_.size()) fail("expected nothing more");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    fail_argument(where_ + ": JSON, byte " + std::to_string(at_) + ": " + what);
  }

  // 0 beyond the end, which is no character that JSON knows.
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at_;
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json value(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    if (++values_ > kMaxValues) fail("too many values");
    skip_space();
    Json json;
    if (take('{')) {
      json.kind = Json::kObject;
      object(json, depth);
    } else if (take('[')) {
      json.kind = Json::kArray;
      array(json, depth);
    } else if (peek() == '"') {
      json.kind = Json::kString;
      json.text = string();
    } else if (take_word("null")) {
      json.kind = Json::kNull;
    } else if (take_word("false")) {
      json.kind = Json::kFalse;
    } else if (take_word("true")) {
      json.kind = Json::kTrue;
    } else {
      json.kind = Json::kNumber;
      json.text = number();
    }
    return json;
  }

  void object(Json& json, int depth) {
    skip_space();
    if (take('}')) return;
    do {
      skip_space();
      std::string name = string();
      skip_space();
      if (!take(':')) fail("expected ':'");
      json.members.emplace_back(std::move(name), value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take('}')) fail("expected ',' or '}'");
    refuse_twins(json);
  }

  void array(Json& json, int depth) {
    skip_space();
    if (take(']')) return;
    do {
      json.items.push_back(value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) fail("expected ',' or ']'");
  }

  // By sorting: comparing each with each would let a file of some megabytes keep the reader busy for hours.
  void refuse_twins(const Json& json) const {
    std::vector<std::string_view> names;
    for (const auto& member : json.members) names.push_back(member.first);
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end()) fail("a name stands twice in the object before");
  }

  std::string string() {
    if (!take('"')) fail("expected '\"'");
    std::string out;
    while (!take('"')) {
      if (at_ == text_.size()) fail("the string has no end");
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (static_cast<unsigned char>(c) >= 0x80) {
        character(out);
        continue;
      }
      ++at_;
      if (c == '\\')
        escape(out);
      else
        out += c;
    }
    return out;
  }

  // One of more than one byte in UTF-8 (RFC 3629): no longer than needed, no surrogate, none beyond U+10FFFF.
  void character(std::string& out) {
    const auto byte = [&](size_t i) -> uint32_t {
      return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0;
    };
    const uint32_t first = byte(0);
    const size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t code = first & (0x3f >> more);
    bool right = first >= 0xc2 && first <= 0xf4;
    for (size_t i = 1; i <= more; ++i) {
      right = right && (byte(i) & 0xc0) == 0x80;
      code = code << 6 | (byte(i) & 0x3f);
    }
    right = right && (more < 2 || code >= 0x800) && (more < 3 || code >= 0x10000) && code <= 0x10ffff;
    if (!right || (code >= 0xd800 && code <= 0xdfff)) fail("no UTF-8");
    out += text_.substr(at_, more + 1);
    at_ += more + 1;
  }

  void escape(std::string& out) {
    static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const size_t which = kNames.find(peek());
    if (which != std::string_view::npos) {
      ++at_;
      out += kValues[which];
      return;
    }
    if (!take('u')) fail("an unknown escape");
    uint32_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00) {
      if (!take_word("\\u")) fail("half of a surrogate pair");
      const uint32_t low = hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      fail("half of a surrogate pair");
    }
    append_utf8(out, code);
  }

  uint32_t hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      static constexpr std::string_view kDigits = "0123456789abcdef0123456789ABCDEF";
      const size_t digit = kDigits.find(peek());
      if (digit == std::string_view::npos) fail("expected four hexadecimal digits");
      code = code * 16 + static_cast<uint32_t>(digit % 16);
      ++at_;
    }
    return code;
  }

  static void append_utf8(std::string& out, uint32_t code) {
    const auto byte = [&](uint32_t bits) { out += static_cast<char>(bits); };
    if (code < 0x80) {
      byte(code);
    } else if (code < 0x800) {
      byte(0xc0 | code >> 6), byte(0x80 | (code & 63));
    } else if (code < 0x10000) {
      byte(0xe0 | code >> 12), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
    } else {
      byte(0xf0 | code >> 18), byte(0x80 | (code >> 12 & 63)), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63));
    }
  }

  bool digits() {
    const size_t first = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > first;
  }
  std::string number() {
    const size_t first = at_;
    take('-');
    if (!take('0') && !digits()) fail("expected a value");
    if (take('.') && !digits()) fail("expected a digit");
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) fail("expected a digit");
    }
    return std::string(text_.substr(first, at_ - first));
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int values_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (const auto& member : members)
    if (member.first == name) return &member.second;
  return nullptr;
}

bool Json::as_int(int64_t& value) const {
  if (kind != kNumber) return false;
  const bool negative = text[0] == '-';
  int64_t sum = 0;
  for (const char c : std::string_view(text).substr(negative ? 1 : 0)) {
    if (c < '0' || c > '9') return false;
    const int64_t digit = negative ? '0' - c : c - '0';
    if (__builtin_mul_overflow(sum, int64_t{10}, &sum) || __builtin_add_overflow(sum, digit, &sum)) return false;
  }
  value = sum;
  return true;
}

// Through a stream with a locale of its own: strtod's decimal point is the process's, and from_chars knows no floating
// point in some C++ libraries of today.
bool Json::as_number(double& value) const {
  if (kind != kNumber) return false;
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  stream >> value;
  return !stream.fail() && std::isfinite(value);
}

Json parse_json(std::string_view text, const std::string& where) { return Parser(text, where).whole(); }

}  // namespace gruc
