// A model loaded from memory with nothing to spare behind it, and one small file for tests to spoil.
// Must not include the core's internals.
#pragma once
#include <algorithm>

#include "model_writer.h"
#include "support.h"

namespace gruc::test {

struct Model {
  Model() = default;
  explicit Model(const FileBytes& bytes) { load(bytes); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() { gruc_model_destroy(model); }
  // From memory with nothing to spare behind it, in no alignment.
  void load(const FileBytes& bytes) {
    FileBytes exact(1);
    exact.insert(exact.end(), bytes.begin(), bytes.end());
    status = gruc_model_load_memory(exact.data() + 1, bytes.size(), &model);
  }
  gruc_model* model = nullptr;
  gruc_status status = GRUC_OK;
};

inline ::testing::AssertionResult loads(const FileBytes& bytes) {
  const Model model(bytes);
  if (model.status == GRUC_OK && model.model != nullptr) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << gruc_last_error();
}
inline ::testing::AssertionResult refuses(const FileBytes& bytes, const char* named) {
  const Model model(bytes);
  if (model.model != nullptr) return ::testing::AssertionFailure() << "a model came of it";
  return refused(model.status, named);
}

inline const gruc_spec kSpec = make_spec(2, 3);

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " in " << text;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}
// The file of kSpec with another text in its head, its length put right.
inline FileBytes with_head(const std::string& from, const std::string& to) {
  const FileModel good = counted_model(kSpec);
  return join(replaced(good.head(), from, to), good.data());
}
inline FileBytes with_about(const std::string& from, const std::string& to) {
  FileModel model = counted_model(kSpec);
  model.about = replaced(model.about, from, to);
  return model.bytes();
}

}  // namespace gruc::test
