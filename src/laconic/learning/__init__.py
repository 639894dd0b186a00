"""Learning: models, the four parts of a federated learning process, and the algorithms made of them."""

from laconic.learning import models as models
from laconic.learning._algorithms import fed_avg as fed_avg
from laconic.learning._client_work import Weighting as Weighting
from laconic.learning._client_work import local_training as local_training
from laconic.learning._evaluation import Evaluation as Evaluation
from laconic.learning._evaluation import EvaluationResult as EvaluationResult
from laconic.learning._evaluation import evaluation as evaluation
from laconic.learning._keras import from_keras as from_keras
from laconic.learning._model import MeanSums as MeanSums
from laconic.learning._model import Metric as Metric
from laconic.learning._model import Model as Model
from laconic.learning._model import accuracy as accuracy
from laconic.learning._model import mean_metric as mean_metric
from laconic.learning._parts import Aggregated as Aggregated
from laconic.learning._parts import Aggregator as Aggregator
from laconic.learning._parts import ClientResult as ClientResult
from laconic.learning._parts import ClientWork as ClientWork
from laconic.learning._parts import Distributor as Distributor
from laconic.learning._parts import Finalizer as Finalizer
from laconic.learning._parts import encoded_broadcast as encoded_broadcast
from laconic.learning._parts import encoded_mean as encoded_mean
from laconic.learning._parts import server_optimizer as server_optimizer
from laconic.learning._process import LearningProcess as LearningProcess
from laconic.learning._process import LearningState as LearningState
from laconic.learning._process import RoundResult as RoundResult
from laconic.learning._process import compose as compose
