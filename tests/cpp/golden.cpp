// Golden outputs: one file for every ISA and platform. A case has a line, and below it, indented, one for each output:
// its name, how many numbers it has, and the 64-bit FNV-1a hash of their bytes, little-endian, any NaN as 0x7fc00000
// (payloads are not promised); of cases that are kept whole the numbers follow in hexadecimal.
//   gru_core_golden --write FILE --isa NAME      gru_core_golden --compare FILE --isa NAME
// Exits with 0 where all is equal, 1 where it is not, 77 where this machine cannot run the ISA.
// Must not include the core's internals.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "golden_cases.h"

namespace gruc::golden {
namespace {

constexpr int kSkip = 77, kMostReported = 20;

std::vector<uint32_t> words_of(const std::vector<float>& numbers) {
  std::vector<uint32_t> words;
  for (const float x : numbers) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    words.push_back((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : bits);
  }
  return words;
}

uint64_t hash_of(const std::vector<uint32_t>& words) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint32_t word : words)
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (word >> shift & 0xff)) * 0x100000001b3;
  return hash;
}

// "count hash", and the numbers of a whole one.
std::string line_of(const Case& c, const Output& output) {
  const std::vector<uint32_t> words = words_of(output.numbers);
  char text[40];
  std::snprintf(text, sizeof text, "%zu %016" PRIx64, words.size(), hash_of(words));
  std::string line = text;
  for (size_t i = 0; c.whole && i < words.size(); ++i) {
    std::snprintf(text, sizeof text, " %08" PRIx32, words[i]);
    line += text;
  }
  return line;
}

// Of the first number that differs in two lines; 0 where only hashes are known.
size_t first_difference(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string x, y;
  for (size_t i = 0; left >> x && right >> y; ++i)
    if (i >= 2 && x != y) return i - 1;
  return 0;
}

void use_isa(const std::string& isa) {
#if defined(_WIN32)
  _putenv_s("GRUC_ISA", isa.c_str());
#else
  setenv("GRUC_ISA", isa.c_str(), 1);
#endif
}

using Lines = std::map<std::string, std::string>;  // "case output" -> its line

Lines read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  Lines lines;
  std::string name;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    if (line[0] != ' ') {
      name = line;
      continue;
    }
    const size_t end = line.find(' ', 1);
    if (end == std::string::npos || name.empty())
      throw std::runtime_error(path + ": expected a case and ' output count hash', got '" + line + "'");
    lines[name + line.substr(0, end)] = line.substr(end + 1);
  }
  return lines;
}

int write(const std::string& path, const std::string& isa) {
  std::ofstream file(path, std::ios::binary);
  file << "# Golden outputs of gru_core; tests/cpp/golden.cpp says what they are. Written with " << isa << ".\n";
  size_t count = 0;
  for (const Case& c : cases()) {
    file << c.name << '\n';
    for (const Output& output : run(c)) {
      file << ' ' << output.name << ' ' << line_of(c, output) << '\n';
      ++count;
    }
  }
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
  std::printf("golden: wrote %zu outputs of %zu cases to %s with %s\n", count, cases().size(), path.c_str(),
              isa.c_str());
  return 0;
}

int compare(const std::string& path, const std::string& isa) {
  Lines expected = read(path);
  const size_t total = expected.size();
  int wrong = 0;
  const auto report = [&](const std::string& what) {
    if (++wrong <= kMostReported) std::printf("golden: %s\n", what.c_str());
  };
  for (const Case& c : cases())
    for (const Output& output : run(c)) {
      const std::string name = c.name + ' ' + output.name, line = line_of(c, output);
      const auto found = expected.find(name);
      if (found == expected.end()) {
        report(name + ": not in the file");
        continue;
      }
      if (found->second != line) {
        const size_t at = first_difference(found->second, line);
        report(name + ": differs" + (at > 0 ? " first at number " + std::to_string(at - 1) : "") + ", expected " +
               found->second.substr(0, 100) + ", got " + line.substr(0, 100));
      }
      expected.erase(found);
    }
  for (const auto& [name, line] : expected) report(name + ": in the file alone");
  if (wrong == 0)
    std::printf("golden: all %zu outputs of %s are the same bits with %s\n", total, path.c_str(), isa.c_str());
  else
    std::printf("golden: %d of %zu outputs of %s differ with %s\n", wrong, total, path.c_str(), isa.c_str());
  return wrong == 0 ? 0 : 1;
}

int main_of(int count, char** arguments) {
  const std::string usage = "expected --write FILE or --compare FILE, and --isa NAME";
  if (count != 5 || std::strcmp(arguments[3], "--isa") != 0) throw std::runtime_error(usage);
  const std::string action = arguments[1], path = arguments[2], isa = arguments[4];
  use_isa(isa);
  const char* active = nullptr;
  const gruc_status status = gruc_isa_active(&active);
  if (status == GRUC_UNSUPPORTED) {
    std::printf("golden: skipped, %s\n", gruc_last_error());
    return kSkip;
  }
  if (status != GRUC_OK) throw std::runtime_error(gruc_last_error());
  if (action == "--write") return write(path, isa);
  if (action == "--compare") return compare(path, isa);
  throw std::runtime_error(usage);
}

}  // namespace
}  // namespace gruc::golden

int main(int count, char** arguments) {
  try {
    return gruc::golden::main_of(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gru_core_golden: %s\n", error.what());
    return 2;
  }
}
