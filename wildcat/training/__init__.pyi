from .launch import train as train
from .multiscale import train_scales as train_scales
