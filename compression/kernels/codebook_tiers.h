// Rows that share codebooks of 16 levels: the two tiers of `rowwise4`.
//
// Guan et al., arXiv 1911.02079: rows are clustered, and the values of each
// cluster have a codebook of their own.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_CODEBOOK_TIERS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_CODEBOOK_TIERS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compression/kernels/row_grid.h"

namespace deltapipe {

/// Borrowed: what is fitted.
struct CodebookTiers {
  std::vector<RowCodebook>& codebooks;
  std::vector<uint8_t>& codebook_of_row;
};

/// Fits `num_codebooks` (1 to 255, at most one per row) to rows of `row`
/// values, the last of them perhaps short. Rows are grouped by their range, as
/// many to a group; then each goes to the codebook of least squared error and
/// codebooks are fitted anew, twice. A row that is not finite counts as zeros.
void FitCodebookTiers(absl::Span<const float> values, int64_t row,
                      int64_t num_codebooks, const CodebookTiers& tiers);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_CODEBOOK_TIERS_H_
