// JSON by RFC 8259: what is a text and what it means, and that everything else is refused at the byte where it is
// wrong.
#include <string>
#include <string_view>
#include <vector>

#include "json.h"
#include "status.h"
#include "support.h"

namespace gruc::test {
namespace {

// The message, or "" where the text was read.
std::string refusal(std::string_view text) {
  // A copy with nothing to spare: a sanitizer sees a byte read beyond.
  const std::vector<char> exact(text.begin(), text.end());
  try {
    parse_json({exact.data(), exact.size()}, "here");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), GRUC_INVALID_ARGUMENT);
    return error.what();
  }
  return "";
}
bool is_json(std::string_view text) { return refusal(text).empty(); }
Json read(std::string_view text) { return parse_json(text, "here"); }
std::string string_of(std::string_view text) {
  const Json json = read(text);
  EXPECT_EQ(json.kind, Json::kString) << text;
  return json.text;
}

TEST(Json, Values) {
  EXPECT_EQ(read("null").kind, Json::kNull);
  EXPECT_EQ(read("true").kind, Json::kTrue);
  EXPECT_EQ(read("false").kind, Json::kFalse);
  EXPECT_EQ(read("\"a\"").kind, Json::kString);
  EXPECT_EQ(read("[]").kind, Json::kArray);
  EXPECT_EQ(read("{}").kind, Json::kObject);
  EXPECT_EQ(read("-1.5e3").text, "-1.5e3");
  const Json json = read(" { \"a\" : [ 1 , \"b\" , { } ] ,\r\n\t\"\" : null } ");
  ASSERT_EQ(json.members.size(), 2u);
  EXPECT_EQ(json.members[0].first, "a");
  ASSERT_NE(json.find("a"), nullptr);
  ASSERT_EQ(json.find("a")->items.size(), 3u);
  EXPECT_EQ(json.find("a")->items[1].text, "b");
  EXPECT_EQ(json.find("a")->items[2].kind, Json::kObject);
  ASSERT_NE(json.find(""), nullptr);
  EXPECT_EQ(json.find("c"), nullptr);
  EXPECT_EQ(json.find("a")->find("b"), nullptr) << "an array has no members";
}

TEST(Json, Escapes) {
  EXPECT_EQ(string_of(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(string_of(R"("\u0041\u00e9\u20AC")"), "A\xc3\xa9\xe2\x82\xac");
  EXPECT_EQ(string_of(R"("\u007f\u0080\u07ff\u0800\uffff")"), "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf");
  EXPECT_EQ(string_of(R"("\u0000")"), std::string(1, '\0'));
  EXPECT_EQ(string_of(R"("\ud800\udc00\uDBFF\uDFFF")"), "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
  for (const char* wrong : {R"("\a")", R"("\'")", R"("\x41")", R"("\U0041")", R"("\u004")", R"("\u00g1")",
                            R"("\u 041")", R"("\u+041")", R"("\)", R"("\u)", R"("\u0041)"})
    EXPECT_FALSE(is_json(wrong)) << wrong;
}

TEST(Json, HalvesOfSurrogatePairs) {
  for (const char* wrong : {R"("\ud800")", R"("\udbff\n")", R"("\ud800A")", R"("\ud800\u0041")", R"("\ud800\ud800")",
                            R"("\udc00")", R"("\udfff\ud800")", R"("\ud800\udbff")", R"("\ud800\ue000")"})
    EXPECT_NE(refusal(wrong).find("surrogate"), std::string::npos) << wrong;
}

TEST(Json, StringsHoldNoControlCharacters) {
  for (char c = 0; c < 0x20; ++c) {
    EXPECT_FALSE(is_json(std::string("\"") + c + "\"")) << int{c};
    EXPECT_FALSE(is_json(std::string("{\"") + c + "\":1}")) << int{c};
  }
  EXPECT_EQ(string_of("\"\x7f\""), "\x7f");
}

// RFC 3629: no longer than needed, no surrogates, nothing beyond U+10FFFF.
TEST(Json, TextIsUtf8) {
  for (const char* right : {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
                            "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xa9z\xe2\x82\xac!"}) {
    EXPECT_EQ(string_of(std::string("\"") + right + "\""), right);
    EXPECT_TRUE(is_json(std::string("{\"") + right + "\":1}")) << right;
  }
  for (const char* wrong : {"\x80",
                            "\xbf",
                            "\xc0\x80",
                            "\xc1\xbf",
                            "\xc2",
                            "\xc2z",
                            "\xc2\xc2",
                            "\xe0\x80\x80",
                            "\xe0\x9f\xbf",
                            "\xe2\x82",
                            "\xe2\x82z",
                            "\xe2z\xac",
                            "\xed\xa0\x80",
                            "\xed\xbf\xbf",
                            "\xf0\x80\x80\x80",
                            "\xf0\x8f\xbf\xbf",
                            "\xf0\x90\x80",
                            "\xf4\x90\x80\x80",
                            "\xf5\x80\x80\x80",
                            "\xf8\x88\x80\x80\x80",
                            "\xff"}) {
    const std::string string = std::string("\"") + wrong + "\"";
    EXPECT_NE(refusal(string).find("UTF-8"), std::string::npos) << string;
    EXPECT_FALSE(is_json("{" + string + ":1}")) << string;
    EXPECT_FALSE(is_json(std::string("\"") + wrong)) << "nor at the end of all";
  }
}

TEST(Json, NumbersByTheGrammar) {
  for (const char* right : {"0", "-0", "1", "-1", "10", "1.0", "0.1", "-0.0", "1e1", "1E+1", "1e-1", "1.5e10", "0e0",
                            "123456789012345678901234567890", "1e99999", "0.00000000000000000000000000000001"})
    EXPECT_TRUE(is_json(right)) << right;
  for (const char* wrong : {"+1",   "-",        "--1",       "01",    "-01",  "00",    "1.",   ".1",      "-.1",
                            "1.e1", "1e",       "1e+",       "1e+-1", "1ee1", "1.1.1", "0x10", "1f",      "1_000",
                            "1,5",  "Infinity", "-Infinity", "NaN",   "nan",  "inf",   "1 2",  "\xd9\xa1"})
    EXPECT_FALSE(is_json(wrong)) << wrong;
}

TEST(Json, WholeNumbers) {
  const auto whole = [](const char* text) {
    int64_t value = -7;
    return read(text).as_int(value) ? std::to_string(value) : "none";
  };
  EXPECT_EQ(whole("0"), "0");
  EXPECT_EQ(whole("-0"), "0");
  EXPECT_EQ(whole("42"), "42");
  EXPECT_EQ(whole("9223372036854775807"), "9223372036854775807");
  EXPECT_EQ(whole("-9223372036854775808"), "-9223372036854775808");
  for (const char* none : {"9223372036854775808", "-9223372036854775809", "18446744073709551616", "1.0", "1e2", "-1.5",
                           "99999999999999999999999999", "\"1\"", "true", "null", "[1]", "{}"})
    EXPECT_EQ(whole(none), "none") << none;
}

TEST(Json, FiniteNumbers) {
  const auto number = [](const char* text) {
    double value = 0.0;
    EXPECT_TRUE(read(text).as_number(value)) << text;
    return value;
  };
  EXPECT_EQ(number("0"), 0.0);
  EXPECT_EQ(number("-2"), -2.0);
  EXPECT_EQ(number("0.1"), 0.1);
  EXPECT_EQ(number("1.5e-3"), 1.5e-3);
  EXPECT_EQ(number("1e308"), 1e308);
  EXPECT_EQ(number("1.7976931348623157e308"), 1.7976931348623157e308);
  EXPECT_EQ(number("123456789012345678901234567890"), 123456789012345678901234567890.0);
  for (const char* none : {"1e309", "-1e309", "1e99999", "\"1\"", "true", "null", "[1]"}) {
    double value = 0.0;
    EXPECT_FALSE(read(none).as_number(value)) << none;
  }
}

TEST(Json, NothingElseIsJson) {
  for (const char* wrong : {"",
                            " ",
                            "\n",
                            "nul",
                            "nulll",
                            "True",
                            "TRUE",
                            "tru",
                            "undefined",
                            "'a'",
                            "a",
                            "\"",
                            "\"a",
                            "[",
                            "]",
                            "[1",
                            "[1,",
                            "[,]",
                            "[1,]",
                            "[,1]",
                            "[1 2]",
                            "[1;2]",
                            "{",
                            "}",
                            "{\"a\"",
                            "{\"a\":",
                            "{\"a\":1",
                            "{\"a\":1,",
                            "{\"a\":1,}",
                            "{,}",
                            "{\"a\"}",
                            "{\"a\",1}",
                            "{\"a\" 1}",
                            "{a:1}",
                            "{1:1}",
                            "{null:1}",
                            "{\"a\":1 \"b\":2}",
                            "{\"a\"::1}",
                            "[1}",
                            "{\"a\":1]",
                            "//\n1",
                            "/**/1",
                            "1 //",
                            "#\n1",
                            "\xef\xbb\xbf"
                            "1",
                            "\f1",
                            "\v1",
                            "\xc2\xa0"
                            "1"})
    EXPECT_FALSE(is_json(wrong)) << wrong;
}

TEST(Json, NothingMayFollow) {
  for (const char* right : {"1", "\"a\"", "[1]", "{\"a\":1}", "null"}) {
    EXPECT_TRUE(is_json(right + std::string(" \n\t\r")));
    for (const char* after : {"1", ",", "]", "}", "null", "\"", "{}"})
      EXPECT_FALSE(is_json(right + std::string(" ") + after)) << right << " " << after;
    EXPECT_FALSE(is_json(right + std::string(1, '\0'))) << "a byte of 0 is no end";
  }
}

// Cut anywhere, it is another text, or none.
TEST(Json, NoPrefixIsWhole) {
  const std::string text =
      R"({"a":[1,-2.5e-3,true,false,null,"x\n\u20ac\ud83d\ude00",[],{}],"b":{"c":{"d":[[[]]]}},"":""})";
  ASSERT_TRUE(is_json(text)) << refusal(text);
  for (size_t size = 0; size < text.size(); ++size) EXPECT_FALSE(is_json(text.substr(0, size))) << size;
}

TEST(Json, NestingIsBounded) {
  const auto nested = [](size_t depth, const std::string& open, const std::string& close) {
    std::string text;
    for (size_t i = 0; i < depth; ++i) text += open;
    text += "1";
    for (size_t i = 0; i < depth; ++i) text += close;
    return text;
  };
  EXPECT_TRUE(is_json(nested(16, "[", "]")));
  EXPECT_TRUE(is_json(nested(16, "{\"a\":", "}")));
  for (const size_t depth : {size_t{17}, size_t{1000}, size_t{1000000}}) {
    EXPECT_NE(refusal(nested(depth, "[", "]")).find("deep"), std::string::npos) << depth;
    EXPECT_NE(refusal(nested(depth, "{\"a\":", "}")).find("deep"), std::string::npos) << depth;
    EXPECT_FALSE(is_json(std::string(depth, '[')));
  }
}

// Or a file of some megabytes would take half a gigabyte.
TEST(Json, ValuesAreBounded) {
  const auto zeros = [](size_t count) {
    std::string text = "[0";
    for (size_t i = 1; i < count; ++i) text += ",0";
    return text + "]";
  };
  EXPECT_TRUE(is_json(zeros((size_t{1} << 18) - 1)));
  EXPECT_NE(refusal(zeros(size_t{1} << 18)).find("too many values"), std::string::npos);
  EXPECT_NE(refusal(zeros(size_t{1} << 21)).find("too many values"), std::string::npos);
}

TEST(Json, NamesStandOnce) {
  EXPECT_TRUE(is_json(R"({"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]})"));
  for (const char* wrong : {R"({"a":1,"a":1})", R"({"a":1,"b":2,"a":3})", R"({"":1,"":2})", R"({"a":1,"\u0061":2})",
                            R"([{"x":{"a":1,"a":2}}])"})
    EXPECT_NE(refusal(wrong).find("twice"), std::string::npos) << wrong;
}

TEST(Json, RefusalsSayWhere) {
  EXPECT_EQ(refusal("\"a"), "here: JSON, byte 2: the string has no end");
  EXPECT_EQ(refusal("[1,2,x]").find("here: JSON, byte 5"), 0u) << refusal("[1,2,x]");
  EXPECT_EQ(refusal("{\"a\":1").find("here: JSON, byte 6"), 0u) << refusal("{\"a\":1");
}

}  // namespace
}  // namespace gruc::test
