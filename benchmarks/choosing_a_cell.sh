#!/bin/sh
# The tables of docs/choosing-a-cell.md: every cell on four problems, at equal parameters and equal time, one thread.
#
#     benchmarks/choosing_a_cell.sh OUT MNIST CHORALES
#
# OUT is where the tables go, MNIST the folder of its four idx files, CHORALES the folder of JSB_Chorales.mat. A run that
# is in OUT already is not repeated. By default 14 cells x 3 seeds x 4 problems x 1 minute: 3 hours. Less:
#
#     CELLS=lstm,gru SEEDS=1 MINUTES=0.5 T_ADDING=50 T_COPY=30 benchmarks/choosing_a_cell.sh OUT MNIST CHORALES
set -eu
out=$1 mnist=$2 chorales=$3
export OMP_NUM_THREADS=1
all=elman,irnn,lstm,lstm-peephole,gru,mgu,ugrnn,antisymmetric,cornn,lem,slstm
all="$all,indrnn layers=2,mingru layers=2,lru"  # one layer of the first two has no product but with its few inputs

compare() {
    task=$1; shift
    rates=""
    for rate in ${RATES:-0.002}; do rates="$rates --rate $rate"; done
    # shellcheck disable=SC2086
    ${PYTHON:-python} -m carousel compare "$task" --cells "${CELLS:-$all}" --minutes "${MINUTES:-1}" \
        --seeds "${SEEDS:-3}" --threads 1 $rates --out "$out/$task" "$@"
}

compare adding --length "${T_ADDING:-100}"
compare copy --length "${T_COPY:-100}"
compare digits --data "$mnist"
compare chorales --data "$chorales"
