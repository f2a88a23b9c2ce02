"""The keys whose default depends on the data set. The comment behind a key is its meaning."""

from yacs.config import CfgNode


def _dataset(**keys: object) -> CfgNode:
    return CfgNode(keys)


dataset_cfg = {
    "sysu": _dataset(
        num_id=395,  # identities to train on: the number of classes
        num_cam=6,  # cameras of the data set
        data_root="../../Datasets/SYSU-MM01",  # the folder that holds cam1 ... cam6 and exp
        mser_k1=40,  # MSER: size of the k-reciprocal neighbourhood
        mser_k2=20,  # MSER: neighbours that are averaged; 1 averages nothing
        mser_lambda=0.3,  # MSER: weight of the original distance in the final one
    ),
    "regdb": _dataset(
        num_id=206,
        num_cam=2,
        data_root="../../Datasets/RegDB",  # the folder that holds Visible, Thermal and idx
        mser_k1=50,
        mser_k2=10,
        mser_lambda=0.2,
    ),
}
