// SPDX-License-Identifier: MIT
#include "sweep.hpp"

#include <Eigen/SVD>

namespace lowrank_tests {

lowrank::vector<double> jacobi_values(const lowrank::matrix<double>& a) {
    return Eigen::JacobiSVD<lowrank::matrix<long double>>(a.cast<long double>()).singularValues().cast<double>();
}

}  // namespace lowrank_tests
