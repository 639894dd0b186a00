"""Built-in models, as pure functions."""

from laconic.learning.models._classic import fedavg_cnn as fedavg_cnn
from laconic.learning.models._classic import perceptron as perceptron
from laconic.learning.models._lstm import character_lstm as character_lstm
from laconic.learning.models._resnet import resnet as resnet
from laconic.learning.models._transformer import character_transformer as character_transformer
