// WAV files, mono or stereo, of 16-bit integers or 32-bit floats: read whole, written whole.
// Every length in a file is checked before it is believed: a damaged file is a std::runtime_error that says where.
// Must not include the network.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace wav {

struct Sound {
  uint32_t rate = 0;           // frames a second
  uint32_t channels = 0;       // 1 or 2
  bool is_float = false;       // how it stands in the file
  std::vector<float> samples;  // [frames, channels]; integers as -1 to 1

  size_t frames() const { return samples.size() / channels; }
};

namespace detail {

constexpr uint32_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;

class Bytes {
 public:
  Bytes(const std::string& path, std::vector<unsigned char> bytes) : path_(path), bytes_(std::move(bytes)) {}

  size_t size() const { return bytes_.size(); }

  uint32_t number(size_t at, size_t width) const {
    need(at, width);
    uint32_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= static_cast<uint32_t>(bytes_[at + i]) << (8 * i);
    return value;
  }

  bool is(size_t at, const char (&name)[5]) const {
    need(at, 4);
    return std::memcmp(&bytes_[at], name, 4) == 0;
  }

  void need(size_t at, size_t width) const {
    if (at > size() || width > size() - at) {
      fail("ends at byte " + std::to_string(size()) + ", within what begins at byte " + std::to_string(at));
    }
  }

  [[noreturn]] void fail(const std::string& why) const { throw std::runtime_error(path_ + ": " + why); }

 private:
  const std::string& path_;
  std::vector<unsigned char> bytes_;
};

inline void read_format(const Bytes& file, size_t at, uint32_t length, Sound& sound) {
  if (length < 16) file.fail("its format has " + std::to_string(length) + " bytes, expected 16 or more");
  uint32_t tag = file.number(at, 2);
  if (tag == kExtensible && length >= 26) tag = file.number(at + 24, 2);  // the first bytes of its GUID
  const uint32_t bits = file.number(at + 14, 2);
  sound.channels = file.number(at + 2, 2);
  sound.rate = file.number(at + 4, 4);
  sound.is_float = tag == kFloat;
  if (!(tag == kPcm && bits == 16) && !(tag == kFloat && bits == 32)) {
    file.fail("format " + std::to_string(tag) + " of " + std::to_string(bits) +
              " bits, expected 1 (integers) of 16 or 3 (floats) of 32");
  }
  if (sound.channels != 1 && sound.channels != 2) {
    file.fail(std::to_string(sound.channels) + " channels, expected 1 or 2");
  }
  if (sound.rate == 0) file.fail("0 frames a second");
}

inline void read_samples(const Bytes& file, size_t at, uint32_t length, Sound& sound) {
  file.need(at, length);
  const uint32_t width = sound.is_float ? 4 : 2;
  if (length % (width * sound.channels) != 0) {
    file.fail("its data are " + std::to_string(length) + " bytes, expected whole frames of " +
              std::to_string(width * sound.channels));
  }
  sound.samples.resize(length / width);
  for (size_t i = 0; i < sound.samples.size(); ++i) {
    const uint32_t raw = file.number(at + i * width, width);
    float& sample = sound.samples[i];
    if (sound.is_float) {
      std::memcpy(&sample, &raw, sizeof sample);
    } else {
      sample = static_cast<float>(static_cast<int32_t>(raw ^ 0x8000) - 0x8000) / 32768.0F;
    }
    if (!std::isfinite(sample)) file.fail("sample " + std::to_string(i) + " is no finite number");
  }
}

inline void append(std::vector<char>& out, const char (&name)[5]) { out.insert(out.end(), name, name + 4); }

inline void append(std::vector<char>& out, uint32_t value, size_t width) {
  for (size_t i = 0; i < width; ++i) out.push_back(static_cast<char>(static_cast<unsigned char>(value >> (8 * i))));
}

}  // namespace detail

inline Sound read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + ": cannot be opened");
  const detail::Bytes file(path, {std::istreambuf_iterator<char>(stream), {}});
  if (stream.bad()) throw std::runtime_error(path + ": cannot be read");
  if (!file.is(0, "RIFF") || !file.is(8, "WAVE")) file.fail("no WAV file");
  Sound sound;
  for (size_t at = 12; at < file.size();) {
    const uint32_t length = file.number(at + 4, 4);
    const size_t body = at + 8;
    if (file.is(at, "fmt ")) {
      detail::read_format(file, body, length, sound);
    } else if (file.is(at, "data")) {
      if (sound.channels == 0) file.fail("its data come before their format");
      detail::read_samples(file, body, length, sound);
      return sound;
    }
    file.need(body, length);
    at = body + length + length % 2;
  }
  file.fail("has no data");
}

// Samples beyond full scale are clipped where the file has integers.
inline void write(const std::string& path, const Sound& sound) {
  const uint32_t width = sound.is_float ? 4 : 2;
  const size_t length = sound.samples.size() * width;
  if (length > UINT32_MAX - 64) throw std::runtime_error(path + ": too long for a WAV file");
  std::vector<char> out;
  out.reserve(length + 64);
  detail::append(out, "RIFF");
  detail::append(out, static_cast<uint32_t>(length) + (sound.is_float ? 50 : 36), 4);
  detail::append(out, "WAVE");
  detail::append(out, "fmt ");
  detail::append(out, sound.is_float ? 18 : 16, 4);
  detail::append(out, sound.is_float ? detail::kFloat : detail::kPcm, 2);
  detail::append(out, sound.channels, 2);
  detail::append(out, sound.rate, 4);
  detail::append(out, sound.rate * width * sound.channels, 4);
  detail::append(out, width * sound.channels, 2);
  detail::append(out, 8 * width, 2);
  if (sound.is_float) {  // the length of nothing more, and the number of frames: all but integers have both
    detail::append(out, 0, 2);
    detail::append(out, "fact");
    detail::append(out, 4, 4);
    detail::append(out, static_cast<uint32_t>(sound.frames()), 4);
  }
  detail::append(out, "data");
  detail::append(out, static_cast<uint32_t>(length), 4);
  for (const float sample : sound.samples) {
    uint32_t raw;
    if (sound.is_float) {
      std::memcpy(&raw, &sample, sizeof raw);
    } else {
      const float scaled = std::nearbyint(sample * 32768.0F);
      raw = static_cast<uint32_t>(static_cast<int32_t>(std::fmin(std::fmax(scaled, -32768.0F), 32767.0F)));
    }
    detail::append(out, raw, width);
  }
  std::ofstream stream(path, std::ios::binary);
  stream.write(out.data(), static_cast<std::streamsize>(out.size()));
  stream.close();
  if (!stream) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace wav
