#include "coordinator/launch/kubernetes/http_exchange.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

/// Once per process, before any thread uses libcurl.
bool InitializeCurl() {
  static const bool is_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == 0;
  return is_ready;
}

class Exchange {
 public:
  Exchange(const HttpRequest& request, Deadline deadline,
           const CancelSignal* cancel)
      : request_(request), deadline_(deadline), cancel_(cancel) {}
  ~Exchange() {
    if (is_added_) curl_multi_remove_handle(multi_.get(), easy_.get());
  }

  absl::StatusOr<HttpResponse> Run() {
    if (InitializeCurl()) {
      easy_.reset(curl_easy_init());
      multi_.reset(curl_multi_init());
    }
    if (easy_ == nullptr || multi_ == nullptr || !SetOptions()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "cannot prepare ", Name(), ": libcurl refuses, out of memory?"));
    }
    is_added_ = curl_multi_add_handle(multi_.get(), easy_.get()) == CURLM_OK;
    for (;;) {
      int num_running = 0;
      const CURLMcode done = curl_multi_perform(multi_.get(), &num_running);
      if (done != CURLM_OK) {
        return absl::UnavailableError(
            absl::StrCat(Name(), " failed: ", curl_multi_strerror(done)));
      }
      if (num_running == 0) return Answer();
      if (cancel_ != nullptr && cancel_->is_cancelled()) {
        return absl::CancelledError(absl::StrCat(Name(), " was cancelled"));
      }
      if (deadline_.has_passed()) {
        return absl::DeadlineExceededError(
            absl::StrCat(Name(), " had no answer in time"));
      }
      Wait();
    }
  }

 private:
  std::string Name() const {
    return absl::StrCat(request_.method, " ", request_.url);
  }

  bool SetOptions() {
    CURL* const easy = easy_.get();
    curl_slist* list = nullptr;
    for (const std::string& header : request_.headers) {
      curl_slist* const longer = curl_slist_append(list, header.c_str());
      if (longer != nullptr) list = longer;
    }
    headers_.reset(list);
    const auto set = [easy](CURLoption option, auto value) {
      return curl_easy_setopt(easy, option, value) == CURLE_OK;
    };
    return set(CURLOPT_URL, request_.url.c_str()) &&
           set(CURLOPT_CUSTOMREQUEST, request_.method.c_str()) &&
           set(CURLOPT_HTTPHEADER, headers_.get()) &&
           (request_.body.empty() ||
            (set(CURLOPT_POSTFIELDSIZE_LARGE,
                 static_cast<curl_off_t>(request_.body.size())) &&
             set(CURLOPT_POSTFIELDS, request_.body.c_str()))) &&
           (request_.ca_path.empty() ||
            set(CURLOPT_CAINFO, request_.ca_path.c_str())) &&
           set(CURLOPT_PROTOCOLS_STR, "https,http") && set(CURLOPT_PROXY, "") &&
           set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2}) &&
           set(CURLOPT_NOSIGNAL, 1L) && set(CURLOPT_ERRORBUFFER, error_) &&
           set(CURLOPT_WRITEFUNCTION, &Exchange::OnBody) &&
           set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* self) {
    return static_cast<Exchange*>(self)->TakeBody({data, size * count})
               ? size * count
               : 0;
  }

  bool TakeBody(absl::string_view piece) {
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status == 200 && request_.on_body != nullptr) {
      is_enough_ = !request_.on_body(piece);
      return !is_enough_;
    }
    is_too_large_ = response_.body.size() + piece.size() >
                    static_cast<size_t>(request_.max_response_bytes);
    if (is_too_large_) return false;
    absl::StrAppend(&response_.body, piece);
    return true;
  }

  absl::StatusOr<HttpResponse> Answer() {
    int num_left = 0;
    const CURLMsg* const message =
        curl_multi_info_read(multi_.get(), &num_left);
    const CURLcode result =
        message == nullptr ? CURLE_FAILED_INIT : message->data.result;
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    response_.status = static_cast<int>(status);
    if (result == CURLE_OK || is_enough_) return std::move(response_);
    if (is_too_large_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the answer to ", Name(), " has more than ",
                       request_.max_response_bytes, " bytes"));
    }
    const std::string text =
        absl::StrCat(Name(), " failed: ", curl_easy_strerror(result),
                     error_[0] == '\0' ? "" : absl::StrCat(" (", error_, ")"));
    if (result == CURLE_PEER_FAILED_VERIFICATION ||
        result == CURLE_SSL_CACERT_BADFILE) {
      return absl::UnauthenticatedError(absl::StrCat(
          text, ": the server's certificate must lead to ", request_.ca_path));
    }
    return absl::UnavailableError(text);
  }

  /// Until there is something to do, the deadline or a cancel.
  void Wait() {
    // libcurl shortens this to what its own timers need.
    const auto left = std::min<std::chrono::nanoseconds>(deadline_.remaining(),
                                                         std::chrono::hours(1));
    const auto millis = std::chrono::ceil<std::chrono::milliseconds>(left);
    curl_waitfd file = {cancel_ == nullptr ? -1 : cancel_->file(),
                        CURL_WAIT_POLLIN, 0};
    curl_multi_poll(multi_.get(), &file, cancel_ == nullptr ? 0 : 1,
                    static_cast<int>(millis.count()), nullptr);
  }

  const HttpRequest& request_;
  const Deadline deadline_;
  const CancelSignal* const cancel_;
  std::unique_ptr<CURL, EasyDeleter> easy_;
  std::unique_ptr<CURLM, MultiDeleter> multi_;
  std::unique_ptr<curl_slist, ListDeleter> headers_;
  char error_[CURL_ERROR_SIZE] = "";
  HttpResponse response_;
  bool is_added_ = false;
  bool is_enough_ = false;
  bool is_too_large_ = false;
};

}  // namespace

absl::StatusOr<HttpResponse> ExchangeHttp(const HttpRequest& request,
                                          Deadline deadline,
                                          const CancelSignal* cancel) {
  return Exchange(request, deadline, cancel).Run();
}

}  // namespace deltapipe
