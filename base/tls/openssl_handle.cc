#include "base/tls/openssl_handle.h"

#include <openssl/err.h>

namespace deltapipe {

std::string TakeOpensslError() {
  std::string text = "no reason given";
  bool is_first = true;
  while (const unsigned long code = ERR_get_error()) {
    const char* const reason = ERR_reason_error_string(code);
    if (is_first && reason != nullptr) text = reason;
    is_first = false;
  }
  return text;
}

std::string BioText(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<size_t>(size)) : "";
}

OpensslPtr<BIO> ReadBio(const std::string& text) {
  return OpensslPtr<BIO>(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

}  // namespace deltapipe
