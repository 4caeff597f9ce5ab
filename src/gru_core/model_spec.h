// The spec in a model file's head: JSON under the metadata key gru_c, as python/gru_c/model_file.py writes it.
// Must not include tensors.
#pragma once
#include "json.h"
#include "spec.h"

namespace gruc {

// Of the metadata's text; validated. Throws Error(GRUC_INVALID_ARGUMENT) that begins with `where` or names the field.
Spec parse_model_spec(std::string_view about, const std::string& where);

}  // namespace gruc
