// deltapipe-lab: see lab.h.
#include <iostream>

#include "worker/lab/lab.h"

int main(int argc, char** argv) {
  return deltapipe::RunLab(argc, argv, std::cout, std::cerr);
}
