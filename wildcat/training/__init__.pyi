from .feature_store import FeatureStore as FeatureStore
from .feature_store import open_feature_store as open_feature_store
from .launch import train as train
from .multiscale import train_scales as train_scales
