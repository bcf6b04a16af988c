// A scatter plot as an SVG document: x by powers of two, y by powers of ten.
//
//   ScatterPlot plot;
//   plot.title = "x.safetensors";
//   plot.points = {{"int(4)", 4.1, 0.1, true}, {"sign", 1, 0.6, false}};
//   DP_RETURN_IF_ERROR(WriteFileAtomically(path, ScatterPlotSvg(plot)));
//
// The same plot gives the same text. Labels stand beside their points where
// there is room, else at the end of a thin line; one for which there is none
// nearby is left to the point's tooltip, which every point has.
#ifndef DELTAPIPE_WORKER_LAB_SVG_PLOT_H_
#define DELTAPIPE_WORKER_LAB_SVG_PLOT_H_

#include <string>
#include <vector>

namespace deltapipe {

struct PlotPoint {
  std::string label;
  double x = 0;
  double y = 0;
  /// Drawn in colour and joined with the others by a line of steps.
  bool is_on_front = false;
};

struct ScatterPlot {
  std::string title;
  std::string x_label;
  std::string y_label;
  /// Points with y = 0 lie on an axis of their own, below; those whose x is not
  /// positive or whose y is negative or not finite are left out.
  std::vector<PlotPoint> points;
};

std::string ScatterPlotSvg(const ScatterPlot& plot);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_SVG_PLOT_H_
