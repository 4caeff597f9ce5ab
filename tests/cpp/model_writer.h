// Model files for tests: a writer that can write wrong ones too, and knows nothing of the reader.
// Must not include the core's internals, nor GoogleTest: the fuzz targets use it.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gru_core/gru_core.h"

namespace gruc::test {

using FileBytes = std::vector<unsigned char>;

struct FileTensor {
  std::string name;
  std::vector<int64_t> shape;
  FileBytes data;
  std::string dtype = "F32";
};

struct FileModel {
  std::string about;  // the text of metadata's gru_c
  std::vector<FileTensor> tensors;

  FileTensor& tensor(const std::string& name);  // adds it where there is none
  std::string head() const;
  FileBytes data() const;
  FileBytes bytes() const;
};

FileBytes join(const std::string& head, const FileBytes& data);
std::string quoted(const std::string& text);  // as a JSON string
// The metadata's text of a spec, every field given; values beyond an enum become a name that is none.
std::string about_of(const gruc_spec& spec);

// The network's parameters, in the order and under the names of a file: name, shape.
using NamedShape = std::pair<std::string, std::vector<int64_t>>;
std::vector<NamedShape> shapes_of(const gruc_spec& spec);
// Floats 1, 2, 3 ... through all tensors.
FileModel counted_model(const gruc_spec& spec);

FileBytes bytes_of(const std::vector<float>& floats);
FileBytes bytes_of(const std::vector<int64_t>& numbers);

}  // namespace gruc::test
