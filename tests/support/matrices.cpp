// SPDX-License-Identifier: MIT
#include "matrices.hpp"

#include <Eigen/QR>

namespace lowrank_tests {

lowrank::matrix<double> orthonormal_basis(const lowrank::matrix<double>& a) {
    const Eigen::HouseholderQR<lowrank::matrix<double>> qr(a);
    return qr.householderQ() * lowrank::matrix<double>::Identity(a.rows(), a.cols());
}

}  // namespace lowrank_tests
